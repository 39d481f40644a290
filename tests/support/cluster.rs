//! Several shards and the arbiter between them: control's part of WebRTC, without its HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ringway::shard::{
    Command, EndReason, Event, Handover, PathRequest, RtcId, SessionKey, Verdict,
};

use super::rtc::{RtcStage, pair, rtc_config, signalled};
use super::stage::{Out, Stage};

pub struct Cluster {
    pub shards: Vec<Stage>,
    owners: BTreeMap<RtcId, Owner>,
    /// Every end that was told.
    pub ended: Vec<Event>,
    /// Messages of control that have not arrived yet: to which shard, and what.
    pub post: Vec<(usize, Command)>,
    /// Per shard, the sessions whose port was opened there since the last look.
    pub validated: Vec<Vec<(u64, SessionKey)>>,
    /// Whether they arrive at once.
    pub is_prompt: bool,
}

/// Who owns a session, as the arbiter sees it.
#[derive(Clone, Copy, Debug)]
struct Owner {
    shard: Option<usize>,
    key: Option<SessionKey>,
    /// The shard that wants it while the owner is asked.
    asking: Option<usize>,
}

impl Cluster {
    pub fn new(shards: usize) -> Self {
        let config = rtc_config();
        let validated = vec![Vec::new(); shards];
        let shards = (0..shards)
            .map(|i| {
                let mut config = config.clone();
                config.hash_seed = i as u64;
                Stage::with(config)
            })
            .collect();
        let (owners, ended, post) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { shards, owners, ended, post, validated, is_prompt: true }
    }

    pub fn expect(&mut self, id: u64, restarts: u32) {
        for shard in 0..self.shards.len() {
            let command = Command::Expect { session: signalled(id), pair: pair(id, restarts) };
            self.post.push((shard, command));
        }
        let nobody = Owner { shard: None, key: None, asking: None };
        self.owners.entry(RtcId(id)).or_insert(nobody);
        self.settle();
    }

    pub fn sends(&mut self, shard: usize, source: SocketAddr, bytes: &[u8]) -> Verdict {
        let verdict = self.shards[shard].rtc_sends(source, bytes);
        self.settle();
        verdict
    }

    pub fn finish(&mut self, id: u64) {
        self.finish_after(RtcId(id), EndReason::Deleted, Duration::ZERO);
        self.settle();
    }

    pub fn finish_after(&mut self, session: RtcId, reason: EndReason, linger: Duration) {
        for shard in 0..self.shards.len() {
            self.post.push((shard, Command::Finish { session, reason, linger }));
        }
    }

    pub fn pass(&mut self, time: Duration) {
        for shard in &mut self.shards {
            shard.pass(time);
        }
        self.settle();
    }

    pub fn owner(&self, id: u64) -> Option<usize> {
        self.owners.get(&RtcId(id))?.shard
    }

    /// What the owner calls the session.
    pub fn key(&self, id: u64) -> SessionKey {
        self.owners[&RtcId(id)].key.expect("validated")
    }

    /// Opens the ports that were asked for, and carries messages while they are prompt.
    pub fn settle(&mut self) {
        loop {
            let mut is_quiet = true;
            for shard in 0..self.shards.len() {
                is_quiet &= !self.open_ports(shard);
                for event in self.shards[shard].take_events() {
                    is_quiet = false;
                    self.arbitrate(shard, event);
                }
            }
            if self.is_prompt {
                for (shard, command) in std::mem::take(&mut self.post) {
                    is_quiet = false;
                    self.shards[shard].apply(command);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Ports are opened at once; the openings are taken out of what the test sees.
    fn open_ports(&mut self, shard: usize) -> bool {
        let stage = &mut self.shards[shard];
        let is_open = |out: &Out| matches!(out, Out::Open { .. });
        let (opens, rest) = stage.take_out().into_iter().partition(is_open);
        stage.out = rest;
        let opens: Vec<Out> = opens;
        for open in &opens {
            if let Out::Open { session, .. } = open {
                stage.shard.port_opened(stage.now, *session, Ok(()));
                stage.collect();
            }
        }
        !opens.is_empty()
    }

    fn arbitrate(&mut self, shard: usize, event: Event) {
        match event {
            Event::Path(path) => self.asked(shard, &path),
            Event::Yielded { session, handover } => self.yielded(session, handover),
            Event::Validated { session, key, .. } => {
                let owner = self.owners.get_mut(&session).expect("expected before");
                assert_eq!(owner.shard, Some(shard), "only the owner validates");
                owner.key = Some(key);
                self.validated[shard].push((session.0, key));
            }
            Event::RtcEnded { session, reason, .. } => {
                let owner = self.owners.remove(&session).expect("ended once");
                assert_eq!(owner.shard, Some(shard), "only the owner ends");
                self.ended.push(event);
                self.finish_after(session, reason, Duration::ZERO);
            }
            Event::Expected { result, .. } => assert_eq!(result, Ok(())),
            _ => {}
        }
    }

    fn asked(&mut self, shard: usize, path: &PathRequest) {
        let session = path.session;
        let answer = match self.owners.get_mut(&session) {
            None => (shard, Command::Deny { session }),
            Some(owner) => match (owner.shard, owner.asking) {
                (None, _) => {
                    owner.shard = Some(shard);
                    (shard, Command::Own { session, handover: None })
                }
                (Some(_), Some(_)) => (shard, Command::Deny { session }),
                (Some(at), None) if at == shard => (shard, Command::Deny { session }),
                (Some(at), None) => {
                    owner.asking = Some(shard);
                    (at, Command::Yield { path: Box::new(*path) })
                }
            },
        };
        self.post.push(answer);
    }

    fn yielded(&mut self, session: RtcId, handover: Option<Box<Handover>>) {
        let Some(owner) = self.owners.get_mut(&session) else {
            assert!(handover.is_none(), "an end and a move exclude each other");
            return;
        };
        let Some(asking) = owner.asking.take() else {
            panic!("nobody has asked for {session:?}");
        };
        if handover.is_some() {
            owner.shard = Some(asking);
            owner.key = None;
            self.post.push((asking, Command::Own { session, handover }));
        } else {
            self.post.push((asking, Command::Deny { session }));
        }
    }

    pub fn assert_gone(&self) {
        for shard in &self.shards {
            shard.assert_gone();
        }
        assert!(self.owners.is_empty(), "{:?}", self.owners);
    }
}
