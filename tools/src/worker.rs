//! A generator or an emulator in a thread of its own, and how other threads see and steer it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::board::{Board, Counts, Published};
use crate::clock::{self, MILLISECOND};
use crate::measure;
use crate::sockets::Sockets;

/// One side of a load test: the callers or the origin.
pub trait Side: Send + 'static {
    /// Receives, does what is due, and returns when it wants to be called next.
    ///
    /// # Errors
    /// What the sockets report.
    fn turn(&mut self, now_ns: u64, send_media: bool) -> io::Result<u64>;

    /// Its sockets, to wait for.
    fn sockets(&self) -> Arc<Sockets>;

    /// Where it shows its totals.
    fn board(&self) -> Arc<Board>;

    /// Says goodbye to all peers and shows the final totals.
    fn finish(&mut self);
}

/// A [`Side`] in a thread of its own. Dropping it says goodbye to all peers and ends the thread.
pub struct Worker {
    controls: Arc<Controls>,
    board: Arc<Board>,
    sockets: Arc<Sockets>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Controls {
    sends_media: AtomicBool,
    is_stopping: AtomicBool,
}

impl Worker {
    /// Starts the thread, pinned to `cpus` unless they are empty.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        name: &str,
        cpus: Vec<usize>,
        mut side: impl Side,
        sends_media: bool,
    ) -> io::Result<Self> {
        let controls =
            Arc::new(Controls { sends_media: sends_media.into(), is_stopping: false.into() });
        let (board, sockets) = (side.board(), side.sockets());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn({
            let (controls, sockets) = (Arc::clone(&controls), Arc::clone(&sockets));
            move || {
                if !cpus.is_empty() {
                    measure::pin(&cpus)?;
                }
                clock::sleep_exactly();
                let result = Self::work(&mut side, &controls, &sockets);
                side.finish();
                result
            }
        })?;
        Ok(Self { controls, board, sockets, thread: Some(thread) })
    }

    fn work(side: &mut impl Side, controls: &Controls, sockets: &Sockets) -> io::Result<()> {
        while !controls.is_stopping.load(Ordering::Relaxed) {
            let deadline = side.turn(clock::now(), controls.sends_media.load(Ordering::Relaxed))?;
            // Orders from other threads are looked for at least this often.
            sockets.wait(deadline.min(clock::now() + 10 * MILLISECOND))?;
        }
        Ok(())
    }

    /// Starts or stops the media.
    pub fn send_media(&self, on: bool) {
        self.controls.sends_media.store(on, Ordering::Relaxed);
    }

    /// What it had published at most 50 ms ago.
    #[must_use]
    pub fn published(&self) -> Published {
        self.board.lock().clone()
    }

    /// The totals of [`Worker::published`].
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.board.lock().counts
    }

    /// Forgets the histograms up to now, but for how long sessions took to connect.
    pub fn reset_histograms(&self) {
        let mut published = self.board.lock();
        published.latency.reset();
        published.due_latency.reset();
        published.lateness.reset();
    }

    /// The address of the first socket.
    ///
    /// # Errors
    /// What `getsockname` reports.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.sockets.address()
    }

    /// Datagrams lost because one of its own receive queues was full: the fault of the test, not of
    /// the relay.
    #[must_use]
    pub fn receive_drops(&self) -> u64 {
        self.sockets.receive_drops()
    }

    /// Waits until `is_done` says yes to the totals, or for `patience`. Whether it did.
    pub fn wait_for(&self, patience: Duration, mut is_done: impl FnMut(&Counts) -> bool) -> bool {
        let waiting = |published: &mut Published| !is_done(&published.counts);
        let result = self.board.changed.wait_timeout_while(self.board.lock(), patience, waiting);
        let (guard, timeout) = result.unwrap_or_else(PoisonError::into_inner);
        drop(guard);
        !timeout.timed_out()
    }

    /// Ends the thread after a goodbye to all peers and returns the final state.
    ///
    /// # Errors
    /// What made the thread end early.
    pub fn stop(mut self) -> io::Result<Published> {
        self.join()?;
        Ok(self.published())
    }

    fn join(&mut self) -> io::Result<()> {
        self.controls.is_stopping.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Whoever drops instead of stopping does not care how it went.
        let _ = self.join();
    }
}

/// Waits until all clients have connected.
///
/// # Errors
/// Not all did: how many, and what became of the others.
pub(crate) fn await_sessions(clients: &Worker, sessions: usize) -> anyhow::Result<()> {
    let all = sessions as u64;
    let is_settled = |counts: &Counts| counts.connected + counts.refused + counts.timed_out >= all;
    clients.wait_for(CONNECT_PATIENCE, is_settled);
    let Counts { connected, refused, refusal, timed_out, .. } = clients.counts();
    anyhow::ensure!(
        connected == all,
        "{connected} of {all} clients connected; \
         {refused} refused (last with {refusal}), {timed_out} unanswered"
    );
    Ok(())
}

/// Longer than any client tries.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
