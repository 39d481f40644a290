//! How long a woken thread waits for a CPU that has nothing else to do.
//!
//! The kernel books that wait as run delay, so a relay that sleeps between packets has some on the
//! quietest machine. How much it is depends on the interrupts and idle states of the machine, and so
//! it is measured there: a thread that does nothing is woken again and again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::Context as _;

use crate::clock::{self, SECOND};
use crate::measure::{self, CpuTime, ThreadId};
use crate::report::median;

/// The median for a thread on `cpu` that is woken from another CPU: what else runs meanwhile hits
/// some of the samples and moves it little. At most [`DELAY_MAX_NS`].
///
/// # Errors
/// There is no such CPU, or the kernel keeps no account of run delay.
pub(super) fn delay_ns(cpu: usize) -> anyhow::Result<u64> {
    let (wake, wakes) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let sleeper = std::thread::spawn(move || -> io::Result<()> {
        measure::pin(&[cpu])?;
        // Nobody listens any more only when the measurement has failed already.
        let _ = tell.send(measure::this_thread());
        for () in wakes {
            count.fetch_add(1, Ordering::Release);
        }
        Ok(())
    });
    let delays = match told.recv() {
        Ok(thread) => (0..SAMPLES).map(|_| sample_ns(thread, &wake, &woken)).collect(),
        Err(_) => Ok(Vec::new()),
    };
    drop(wake);
    sleeper.join().map_err(|_| anyhow::anyhow!("the thread to wake has panicked"))??;
    let delays: Vec<f64> = delays?;
    let delay_ns = median(&delays).context("no wake-up was measured")?;
    Ok((delay_ns.round() as u64).min(DELAY_MAX_NS))
}

/// One wake-up.
fn sample_ns(
    thread: ThreadId,
    wake: &mpsc::Sender<()>,
    woken: &AtomicUsize,
) -> anyhow::Result<f64> {
    await_sleep(thread)?;
    let before = CpuTime::of(thread).context("read the run delay of a thread")?;
    let wakes = woken.load(Ordering::Acquire);
    wake.send(()).context("wake a thread")?;
    // Until then it seems to be asleep although it is being woken.
    let deadline = clock::now() + SECOND;
    while woken.load(Ordering::Acquire) == wakes {
        anyhow::ensure!(clock::now() < deadline, BUSY);
    }
    await_sleep(thread)?;
    let after = CpuTime::of(thread).context("read the run delay of a thread")?;
    Ok(after.since(before).run_delay_ns as f64)
}

fn await_sleep(thread: ThreadId) -> anyhow::Result<()> {
    let deadline = clock::now() + SECOND;
    while !measure::is_asleep(thread).context("the thread to wake has ended")? {
        anyhow::ensure!(clock::now() < deadline, BUSY);
    }
    Ok(())
}

const BUSY: &str = "the relay's CPU is not free for a second";

const SAMPLES: usize = 301;
/// Above it the machine is not idle, and the median no wake-up's.
const DELAY_MAX_NS: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_is_measured_on_every_cpu() {
        for cpu in measure::allowed_cpus() {
            assert!((0..=DELAY_MAX_NS).contains(&delay_ns(cpu).unwrap()));
        }
    }
}
