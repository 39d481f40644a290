//! Control's ends of the shards' mailboxes: commands that wait for room, questions that wait for
//! answers.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crossbeam_channel::TrySendError;
use tokio::sync::oneshot;

use super::ShardLink;
use super::ask::Page;
use crate::shard::{Command, Counters};

/// All shards of the process.
pub(super) struct Shards {
    links: Vec<Link>,
    questions: HashMap<u64, Question>,
    next_request: u64,
}

/// Something only a shard knows. Whoever asked waits with a timeout of his own.
enum Question {
    Counters { shard: u16, reply: oneshot::Sender<()> },
    Sessions { reply: oneshot::Sender<Page> },
}

struct Link {
    shard: ShardLink,
    /// Commands that found the mailbox full, in order. Decisions about sessions are as many as
    /// handshakes that the shard itself keeps waiting, which it bounds, and as WebRTC sessions that
    /// admission let in; questions are not taken while anything waits here.
    backlog: VecDeque<Command>,
    /// What it answered last.
    counters: Counters,
    answered_at: Option<Instant>,
    has_emptied: bool,
    /// Its mailbox is gone, so its thread is.
    is_lost: bool,
}

impl Shards {
    pub(super) fn new(shards: Vec<ShardLink>) -> Self {
        let link = |shard| Link {
            shard,
            backlog: VecDeque::new(),
            counters: Counters::default(),
            answered_at: None,
            has_emptied: false,
            is_lost: false,
        };
        Self {
            links: shards.into_iter().map(link).collect(),
            questions: HashMap::new(),
            next_request: 0,
        }
    }

    /// Gives a decision to one shard: now, or as soon as its mailbox has room.
    pub(super) fn tell(&mut self, shard: u16, command: Command) {
        if let Some(link) = self.links.get_mut(usize::from(shard)) {
            link.backlog.push_back(command);
            link.flush(shard);
        }
    }

    /// Gives a decision to all shards.
    pub(super) fn tell_all(&mut self, command: impl Fn() -> Command) {
        for shard in self.indices() {
            self.tell(shard, command());
        }
    }

    /// Tries again what found a mailbox full. Returns whether something still waits.
    pub(super) fn flush(&mut self) -> bool {
        for (shard, link) in (0..).zip(&mut self.links) {
            link.flush(shard);
        }
        self.has_backlog()
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.links.iter().any(|link| !link.backlog.is_empty())
    }

    /// Asks a shard for its counters. `reply` is answered when they are here, and at once when
    /// those that are here are younger than `age_max`; it is dropped when the shard cannot be
    /// asked.
    pub(super) fn ask_counters(
        &mut self,
        now: Instant,
        shard: u16,
        age_max: Duration,
        reply: oneshot::Sender<()>,
    ) {
        let Some(link) = self.links.get(usize::from(shard)) else {
            return;
        };
        if link.answered_at.is_some_and(|at| now.duration_since(at) < age_max) {
            // Whoever asked may have given up.
            let _ = reply.send(());
            return;
        }
        self.ask(
            shard,
            |request| Command::Counters { request },
            Question::Counters { shard, reply },
        );
    }

    /// Asks every shard for a sign of life, which [`Self::counters`] tells of.
    pub(super) fn ask_for_signs_of_life(&mut self, now: Instant) {
        for shard in self.indices() {
            // Nobody waits for this very answer.
            let (reply, _) = oneshot::channel();
            self.ask_counters(now, shard, Duration::ZERO, reply);
        }
    }

    /// Asks a shard for a page of sessions. `reply` is dropped when the shard cannot be asked.
    pub(super) fn ask_sessions(
        &mut self,
        shard: u16,
        from_slot: u32,
        limit: u32,
        reply: oneshot::Sender<Page>,
    ) {
        let command = |request| Command::Sessions { request, from_slot, limit };
        self.ask(shard, command, Question::Sessions { reply });
    }

    fn ask(&mut self, shard: u16, command: impl Fn(u64) -> Command, question: Question) {
        let Some(link) = self.links.get_mut(usize::from(shard)) else {
            return;
        };
        if !link.backlog.is_empty() || self.questions.len() >= QUESTIONS_MAX {
            return;
        }
        let request = self.next_request;
        self.next_request += 1;
        if link.shard.post.send(command(request)).is_ok() {
            self.questions.insert(request, question);
        }
    }

    /// A shard's counters have come.
    pub(super) fn take_counters(
        &mut self,
        now: Instant,
        shard: u16,
        request: u64,
        counters: Counters,
    ) {
        if let Some(link) = self.links.get_mut(usize::from(shard)) {
            link.counters = counters;
            link.answered_at = Some(now);
        }
        match self.questions.remove(&request) {
            Some(Question::Counters { shard: asked, reply }) if asked == shard => {
                let _ = reply.send(());
            }
            Some(Question::Counters { .. } | Question::Sessions { .. }) | None => {}
        }
    }

    /// Who asked for the page that has come; `None` when nobody waits any more.
    pub(super) fn take_sessions_question(&mut self, request: u64) -> Option<oneshot::Sender<Page>> {
        match self.questions.remove(&request)? {
            Question::Sessions { reply } => (!reply.is_closed()).then_some(reply),
            Question::Counters { .. } => None,
        }
    }

    /// Forgets questions whose askers have given up.
    pub(super) fn sweep(&mut self) {
        self.questions.retain(|_, question| match question {
            Question::Counters { reply, .. } => !reply.is_closed(),
            Question::Sessions { reply } => !reply.is_closed(),
        });
    }

    pub(super) fn emptied(&mut self, shard: u16) {
        if let Some(link) = self.links.get_mut(usize::from(shard)) {
            link.has_emptied = true;
        }
    }

    /// Whether every shard that still runs has said that nothing is left in it.
    pub(super) fn are_empty(&self) -> bool {
        self.links.iter().all(|link| link.has_emptied || link.is_lost)
    }

    /// The last counters of each shard, its thread, and whether it has answered since `since`.
    pub(super) fn counters(&self, since: Instant) -> impl Iterator<Item = (&Counters, i32, bool)> {
        self.links.iter().map(move |link| {
            let has_answered = link.answered_at.is_some_and(|at| at >= since);
            (&link.counters, link.shard.tid, has_answered)
        })
    }

    fn indices(&self) -> std::ops::Range<u16> {
        // Shards are numbered in 16 bits.
        0..u16::try_from(self.links.len()).unwrap_or(u16::MAX)
    }
}

impl Link {
    fn flush(&mut self, shard: u16) {
        while let Some(command) = self.backlog.pop_front() {
            match self.shard.post.send(command) {
                Ok(()) => {}
                Err(TrySendError::Full(command)) => {
                    self.backlog.push_front(command);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.backlog.clear();
                    if !std::mem::replace(&mut self.is_lost, true) {
                        let cpu = self.shard.cpu;
                        tracing::error!(shard, ?cpu, "the shard's thread has ended");
                    }
                    return;
                }
            }
        }
    }
}

/// Questions under way, all shards together: what a thousand connections ask at once.
const QUESTIONS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Mailbox, mailbox};

    fn one_shard(capacity: usize) -> (Shards, Mailbox<Command>) {
        let (post, mailbox) = mailbox(capacity).unwrap();
        (Shards::new(vec![ShardLink { post, cpu: None, tid: 0 }]), mailbox)
    }

    #[test]
    fn decisions_that_find_the_mailbox_full_are_kept_in_order() {
        let (mut shards, mailbox) = one_shard(2);
        for bytes in [1, 2, 3, 4, 5] {
            shards.tell(0, Command::KeyLength(bytes));
        }
        let mut seen = Vec::new();
        loop {
            while let Some(Command::KeyLength(bytes)) = mailbox.take() {
                seen.push(bytes);
            }
            if !shards.has_backlog() {
                break;
            }
            shards.flush();
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_question_to_a_shard_that_is_behind_is_given_up_at_once() {
        let (mut shards, _mailbox) = one_shard(1);
        shards.tell(0, Command::KeyLength(0));
        let (reply, mut answer) = oneshot::channel();
        shards.ask_counters(Instant::now(), 0, Duration::ZERO, reply);
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn counters_that_are_young_enough_are_not_asked_for_again() {
        let (mut shards, mailbox) = one_shard(4);
        let now = Instant::now();
        shards.take_counters(now, 0, 7, Counters::default());
        let (reply, mut answer) = oneshot::channel();
        shards.ask_counters(now, 0, Duration::from_secs(1), reply);
        assert_eq!(answer.try_recv(), Ok(()));
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn an_answer_reaches_who_asked() {
        let (mut shards, mailbox) = one_shard(4);
        let (reply, mut answer) = oneshot::channel();
        shards.ask_counters(Instant::now(), 0, Duration::ZERO, reply);
        let Some(Command::Counters { request }) = mailbox.take() else { panic!("not asked") };
        let counters = Counters { sessions: 3, ..Counters::default() };
        shards.take_counters(Instant::now(), 0, request, counters);
        assert_eq!(answer.try_recv(), Ok(()));
        assert_eq!(shards.counters(Instant::now()).next().unwrap().0.sessions, 3);
    }

    #[test]
    fn questions_whose_askers_have_gone_are_forgotten() {
        let (mut shards, _mailbox) = one_shard(4);
        let (reply, answer) = oneshot::channel();
        shards.ask_sessions(0, 0, 256, reply);
        drop(answer);
        shards.sweep();
        assert!(shards.questions.is_empty());
    }

    #[test]
    fn a_shard_whose_thread_has_ended_is_not_waited_for() {
        let (mut shards, mailbox) = one_shard(1);
        drop(mailbox);
        shards.tell_all(|| Command::CloseAll);
        assert!(!shards.has_backlog());
        assert!(shards.are_empty());
    }
}
