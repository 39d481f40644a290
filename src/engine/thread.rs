//! Threads of the data plane: one per shard, named, pinned, and with everything it needs made on
//! it.

use std::net::UdpSocket;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use crossbeam_channel::{Sender, TrySendError};

use super::lane::Lane;
use super::mmsg::{Mmsg, Pool};
use super::socket::pause;
use super::tokio_uring::TokioUring;
use super::uring::Uring;
use super::uring::bufring::BufRing;
use super::{ClientSockets, Engine, EngineError, Offloads, Settings};
use crate::mailbox::{Mailbox, Post};
use crate::shard::command::FromShard;
use crate::shard::{Command, Event, ShardConfig};

/// What a shard's thread is made of.
pub struct ShardSpec {
    /// Position among the shards.
    pub index: u16,
    /// Where the thread is pinned to.
    pub cpu: Option<usize>,
    /// This shard's socket of each listener, in the order of [`crate::shard::ListenerIndex`].
    pub listeners: Vec<UdpSocket>,
    /// For the shard.
    pub config: ShardConfig,
    /// What control says.
    pub commands: Mailbox<Command>,
    /// What control is told.
    pub events: Post<FromShard>,
    /// As the probe found them.
    pub offloads: Offloads,
    /// Sizes.
    pub settings: Settings,
}

/// A running shard.
#[derive(Debug)]
pub struct ShardHandle {
    /// Thread ID, as `/proc` names it.
    pub tid: i32,
    /// Ends after [`Command::Stop`], or when the engine cannot go on; control is told of the latter
    /// by [`Event::Failed`].
    pub join: JoinHandle<Result<(), EngineError>>,
}

/// Starts the thread of one shard. It serves when this returns.
///
/// # Errors
/// What the thread says about its CPU, its buffers, its ring or its sockets.
pub fn start(engine: Engine, spec: ShardSpec) -> Result<ShardHandle, EngineError> {
    let index = spec.index;
    let (ready, is_ready) = crossbeam_channel::bounded(1);
    let join = std::thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || {
            let mut obituary = Obituary { shard: index, events: Some(spec.events.clone()) };
            let result = serve(engine, spec, ready);
            match &result {
                Ok(()) => obituary.withdraw(),
                Err(error) => {
                    let error: &dyn std::error::Error = error;
                    tracing::error!(shard = index, error, "the shard has ended");
                }
            }
            result
        })
        .map_err(EngineError::Thread)?;
    match is_ready.recv() {
        Ok(tid) => Ok(ShardHandle { tid, join }),
        // The thread has dropped its end without having become ready.
        Err(_) => Err(match join.join() {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => EngineError::Panicked { shard: index },
        }),
    }
}

/// The thread. Whatever the engine needs is made here: rings belong to the thread that makes them,
/// and memory lies near the CPU that touches it first.
fn serve(engine: Engine, mut spec: ShardSpec, ready: Sender<i32>) -> Result<(), EngineError> {
    if let Some(cpu) = spec.cpu {
        pin(cpu)?;
    }
    if !engine.gives_clients_sockets() {
        spec.settings.clients = ClientSockets::NONE;
    }
    let (settings, gro) = (spec.settings, spec.offloads.gro);
    let lane = Lane::new(spec, Instant::now())?;
    match engine {
        Engine::Uring => {
            let buffers = BufRing::new(settings.buffers(gro), Settings::payload_bytes(gro))
                .map_err(EngineError::Buffers)?;
            let uring = Uring::new(&buffers, lane, settings)?;
            announce(&ready);
            uring.run()
        }
        Engine::Mmsg => {
            let mut pool = Pool::new(settings.receives(gro), Settings::payload_bytes(gro))
                .map_err(EngineError::Buffers)?;
            let mmsg = Mmsg::new(lane)?;
            announce(&ready);
            mmsg.run(&mut pool)
        }
        Engine::TokioUring => {
            let tokio_uring = TokioUring::new(lane, settings, gro)?;
            announce(&ready);
            tokio_uring.run()
        }
    }
}

/// Tells control that the thread has ended, unless it is withdrawn: dropped after an error as well
/// as by a panic, and after everything that the thread owned.
struct Obituary {
    shard: u16,
    events: Option<Post<FromShard>>,
}

impl Obituary {
    /// The thread ends because it was told to.
    fn withdraw(&mut self) {
        self.events = None;
    }
}

impl Drop for Obituary {
    fn drop(&mut self) {
        let Some(events) = self.events.take() else {
            return;
        };
        let mut message = FromShard { shard: self.shard, event: Event::Failed };
        // Control's mailbox may be full; it is emptied all the time. Else control itself is stuck,
        // and nobody could hear.
        for _ in 0..TELLING_TRIES {
            match events.send(message) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(refused)) => message = refused,
            }
            pause(TELLING_RETRY);
        }
    }
}

fn announce(ready: &Sender<i32>) {
    // `start` waits for it and cannot be gone.
    let _ = ready.send(rustix::thread::gettid().as_raw_nonzero().get());
}

fn pin(cpu: usize) -> Result<(), EngineError> {
    let is_number = cpu < libc::CPU_SETSIZE as usize; // A mask has no place for others.
    let is_pinned = is_number && core_affinity::set_for_current(CoreId { id: cpu });
    // The call says that the mask was taken; this says that the thread runs there.
    if is_pinned && rustix::thread::sched_getcpu() == cpu {
        Ok(())
    } else {
        Err(EngineError::Pin { cpu })
    }
}

/// How often, and each time how long, a thread that has failed waits for room in control's mailbox.
const TELLING_TRIES: usize = 1000;
const TELLING_RETRY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::mailbox;

    #[test]
    fn control_hears_of_a_thread_that_has_panicked() {
        let (events, control) = mailbox(1).unwrap();
        let thread = std::thread::spawn(move || {
            let _obituary = Obituary { shard: 3, events: Some(events) };
            std::panic::resume_unwind(Box::new("as a bug would"));
        });
        assert!(thread.join().is_err());
        let message = control.take().unwrap();
        assert!(matches!(message, FromShard { shard: 3, event: Event::Failed }));
    }

    #[test]
    fn control_hears_of_a_failed_thread_although_its_mailbox_was_full() {
        let (events, control) = mailbox(1).unwrap();
        events.send(FromShard { shard: 0, event: Event::Emptied }).unwrap();
        let obituary = Obituary { shard: 0, events: Some(events) };
        let thread = std::thread::spawn(move || drop(obituary));
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(control.take().map(|message| message.event));
            std::thread::yield_now();
        }
        thread.join().unwrap();
        assert!(matches!(heard[..], [Event::Emptied, Event::Failed]));
    }

    #[test]
    fn a_thread_that_was_told_to_stop_has_nothing_to_say() {
        let (events, control) = mailbox(1).unwrap();
        let mut obituary = Obituary { shard: 0, events: Some(events) };
        obituary.withdraw();
        drop(obituary);
        assert!(control.take().is_none());
    }
}
