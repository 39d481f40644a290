//! The one clock of generators and emulators: nanoseconds of `CLOCK_MONOTONIC`.
//!
//! The kernel stamps received datagrams with `CLOCK_REALTIME`. An [`Offset`] taken beside the
//! receive turns such a stamp into monotonic time, so a stepped wall clock spoils at most one
//! batch.

use std::num::NonZeroU64;

use rustix::event::{PollFd, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;

/// Nanoseconds since the machine started.
#[must_use]
pub fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// How far the wall clock is ahead of [`now`].
#[derive(Clone, Copy, Debug)]
pub struct Offset(u64);

impl Offset {
    /// Reads both clocks.
    #[must_use]
    pub fn take() -> Self {
        let monotonic = now();
        Self(nanoseconds(clock_gettime(ClockId::Realtime)).wrapping_sub(monotonic))
    }

    /// The monotonic time of a wall-clock stamp.
    #[must_use]
    pub fn monotonic(self, realtime_ns: u64) -> u64 {
        realtime_ns.wrapping_sub(self.0)
    }
}

/// SRT's timestamp: microseconds since `started_ns`, wrapping after 01:11:35.
#[must_use]
pub fn srt_timestamp(started_ns: u64, now_ns: u64) -> u32 {
    (now_ns.saturating_sub(started_ns) / 1_000) as u32
}

/// Makes this thread's sleeps end when they should: the kernel adds up to 50 us of slack otherwise.
pub fn sleep_exactly() {
    // Refused only where a sandbox forbids prctl; sleeps are then 50 us coarser, which the lateness
    // histogram shows.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Waits until one of `fds` is ready or `deadline_ns` has come, and says whether one is.
///
/// # Errors
/// What `poll` reports, except `EINTR`, which counts as nothing being ready.
pub fn wait_until(fds: &mut [PollFd<'_>], deadline_ns: u64) -> std::io::Result<bool> {
    let left = deadline_ns.saturating_sub(now());
    let timeout = Timespec {
        tv_sec: i64::try_from(left / SECOND).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(left % SECOND).unwrap_or(0),
    };
    match poll(fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits for `duration`. For threads that pace themselves by time alone, such as a table refreshed
/// once per second.
pub fn pause(duration: std::time::Duration) {
    let deadline = now() + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2);
    while now() < deadline {
        // With no descriptors there is nothing that could fail but EINTR, and then the loop goes
        // on.
        let _ = wait_until(&mut [], deadline);
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * SECOND + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_stamp_taken_now_is_now_in_monotonic_time() {
        let offset = Offset::take();
        let before = now();
        let stamp = nanoseconds(clock_gettime(ClockId::Realtime));
        let after = now();
        let converted = offset.monotonic(stamp);
        // The offset's own two reads lie up to this far apart on a machine that is busy.
        let slack = 50 * MILLISECOND;
        assert!(converted + slack >= before && converted <= after + slack);
    }

    #[test]
    fn the_srt_timestamp_wraps_at_32_bits_of_microseconds() {
        assert_eq!(srt_timestamp(1_000, (1 << 32) * 1_000 + 6_000), 5);
    }

    #[test]
    fn waiting_for_nothing_ends_at_the_deadline() {
        let deadline = now() + MILLISECOND;
        assert!(!wait_until(&mut [], deadline).unwrap());
        assert!(now() >= deadline);
    }
}
