//! Bounded queues between threads that wait for file descriptors: a channel, and an eventfd that says "look".
//!
//! A thread that sleeps in a ring or in epoll cannot see a channel, so every channel has an eventfd beside it. Only
//! commands and events travel here, never media.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustix::event::{EventfdFlags, eventfd};

/// A mailbox for at most `capacity` messages.
///
/// # Errors
/// `EMFILE` or `ENFILE` when no descriptor is left for the eventfd.
pub fn mailbox<T>(capacity: usize) -> std::io::Result<(Post<T>, Mailbox<T>)> {
    let wake = Arc::new(Wake {
        eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        rung: AtomicBool::new(false),
    });
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    Ok((Post { sender, wake: Arc::clone(&wake) }, Mailbox { receiver, wake }))
}

/// The end that messages are given to. Clones share the queue.
pub struct Post<T> {
    sender: Sender<T>,
    wake: Arc<Wake>,
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), wake: Arc::clone(&self.wake) }
    }
}

impl<T> Post<T> {
    /// Puts `message` in and wakes the reader. Never waits.
    ///
    /// # Errors
    /// Gives the message back when the queue is full or its reader is gone.
    pub fn send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(message)?;
        self.wake.ring();
        Ok(())
    }
}

/// The end that messages are taken from.
pub struct Mailbox<T> {
    receiver: Receiver<T>,
    wake: Arc<Wake>,
}

impl<T> Mailbox<T> {
    /// Takes the next message, if there is one.
    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Re-arms the eventfd. Call it when the descriptor became readable, and `take` until empty only afterwards: a
    /// message that arrives in between rings again.
    pub fn acknowledge(&self) {
        self.wake.silence();
    }
}

impl<T> AsFd for Mailbox<T> {
    /// Readable while messages may be waiting.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.eventfd.as_fd()
    }
}

/// One eventfd write for any number of messages that nobody has looked at yet.
struct Wake {
    eventfd: OwnedFd,
    rung: AtomicBool,
}

impl Wake {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is at its limit, and then the reader is awake anyway.
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }

    fn silence(&self) {
        let mut count = [0; 8];
        // EAGAIN means that nobody rang: nothing to clear.
        let _ = rustix::io::read(&self.eventfd, &mut count);
        // A swap and not a store: it acquires what a sender that saw `true` has put in just before.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable<T>(mailbox: &Mailbox<T>) -> bool {
        let mut fds = [PollFd::new(mailbox, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn a_message_makes_the_descriptor_readable_until_it_is_acknowledged() {
        let (post, mailbox) = mailbox(4).unwrap();
        assert!(!is_readable(&mailbox));
        post.send(1).unwrap();
        assert!(is_readable(&mailbox));
        mailbox.acknowledge();
        assert!(!is_readable(&mailbox));
        assert_eq!(mailbox.take(), Some(1));
    }

    #[test]
    fn a_message_sent_between_acknowledge_and_take_rings_again() {
        let (post, mailbox) = mailbox(4).unwrap();
        post.send(1).unwrap();
        mailbox.acknowledge();
        post.send(2).unwrap();
        assert!(is_readable(&mailbox));
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(1), Some(2), None));
    }

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let (post, _mailbox) = mailbox(1).unwrap();
        post.send(1).unwrap();
        assert!(matches!(post.send(2), Err(TrySendError::Full(2))));
    }
}
