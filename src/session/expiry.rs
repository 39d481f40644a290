//! When each session is due: a timer wheel of one node per session.
//!
//! Scheduling and cancelling are O(1) without allocation (nodes are linked by index), the next deadline is found by two
//! bit scans. A datagram does not touch the wheel at all: a session whose deadline has moved on is looked at when its
//! old one fires, and scheduled again.
#![allow(
    clippy::indexing_slicing,
    reason = "wheel positions are masked to the wheel's size; node indices stem from `schedule`, which makes the node"
)]

use std::time::{Duration, Instant};

/// The deadlines of one shard. Nothing fires early; everything fires at most one tick late.
pub struct Expiry {
    started: Instant,
    /// Every tick before this one has fired.
    cursor: u64,
    /// First node of each position.
    heads: Box<[u32]>,
    /// By session slot.
    nodes: Vec<Node>,
    /// Which positions hold a node.
    occupied: [u64; WORDS],
    /// Which words of `occupied` are not zero.
    summary: u64,
}

#[derive(Clone, Copy)]
struct Node {
    previous: u32,
    next: u32,
    /// Position in the wheel, or `NONE` while the session waits for nothing.
    position: u32,
}

impl Expiry {
    /// An empty wheel with room for `sessions` nodes, whose time begins at `started`.
    pub fn new(started: Instant, sessions: usize) -> Self {
        Self {
            started,
            cursor: 0,
            heads: vec![NONE; POSITIONS].into_boxed_slice(),
            nodes: Vec::with_capacity(sessions),
            occupied: [0; WORDS],
            summary: 0,
        }
    }

    /// Makes `slot` due at `deadline`, in place of any deadline it had. A deadline beyond the wheel's horizon of
    /// [`HORIZON`] fires at the horizon: whoever is told looks again.
    pub fn schedule(&mut self, slot: u32, deadline: Instant) {
        self.cancel(slot);
        let since_start = deadline.saturating_duration_since(self.started);
        let tick =
            u64::try_from(since_start.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX);
        // The current tick may be firing right now: nothing is added to it, so a loop over due sessions ends.
        let tick = tick.clamp(self.cursor + 1, self.cursor + POSITIONS as u64 - 1);
        self.link(slot, (tick % POSITIONS as u64) as u32);
    }

    /// Makes `slot` wait for nothing.
    pub fn cancel(&mut self, slot: u32) {
        let Some(&Node { previous, next, position }) = self.nodes.get(slot as usize) else {
            return;
        };
        if position == NONE {
            return;
        }
        match previous {
            NONE => self.heads[position as usize] = next,
            _ => self.nodes[previous as usize].next = next,
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        self.nodes[slot as usize].position = NONE;
        if self.heads[position as usize] == NONE {
            self.mark_empty(position as usize);
        }
    }

    /// Takes one session that is due at `now`.
    pub fn take_due(&mut self, now: Instant) -> Option<u32> {
        let since_start = now.saturating_duration_since(self.started);
        let now_tick = u64::try_from(since_start.as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX);
        match self.next_tick() {
            Some(tick) if tick <= now_tick => {
                self.cursor = tick;
                let slot = self.heads[(tick % POSITIONS as u64) as usize];
                self.cancel(slot);
                Some(slot)
            }
            Some(_) | None => {
                self.cursor = self.cursor.max(now_tick);
                None
            }
        }
    }

    /// When `take_due` will have something.
    pub fn next_deadline(&self) -> Option<Instant> {
        let tick = self.next_tick()?;
        Some(self.started + Duration::from_nanos(tick.saturating_mul(TICK.as_nanos() as u64)))
    }

    fn link(&mut self, slot: u32, position: u32) {
        if self.nodes.len() <= slot as usize {
            self.nodes
                .resize(slot as usize + 1, Node { previous: NONE, next: NONE, position: NONE });
        }
        let head = self.heads[position as usize];
        if head != NONE {
            self.nodes[head as usize].previous = slot;
        }
        self.nodes[slot as usize] = Node { previous: NONE, next: head, position };
        self.heads[position as usize] = slot;
        self.occupied[position as usize / 64] |= 1 << (position % 64);
        self.summary |= 1 << (position / 64);
    }

    fn mark_empty(&mut self, position: usize) {
        self.occupied[position / 64] &= !(1 << (position % 64));
        if self.occupied[position / 64] == 0 {
            self.summary &= !(1 << (position / 64));
        }
    }

    /// The first tick, from the cursor on, whose position is occupied.
    fn next_tick(&self) -> Option<u64> {
        if self.summary == 0 {
            return None;
        }
        let start = (self.cursor % POSITIONS as u64) as usize;
        let (word, bit) = (start / 64, start % 64);
        let here = self.occupied[word] & (u64::MAX << bit);
        let position = if here != 0 {
            word * 64 + here.trailing_zeros() as usize
        } else {
            // Words after this one, then around to the bits of this one that lie before the cursor.
            let turned = self.summary.rotate_right(word as u32 + 1);
            let word = (word + 1 + turned.trailing_zeros() as usize) % WORDS;
            word * 64 + self.occupied[word].trailing_zeros() as usize
        };
        let ahead = (position + POSITIONS - start) % POSITIONS;
        Some(self.cursor + ahead as u64)
    }
}

/// Resolution.
const TICK: Duration = Duration::from_millis(8);
const POSITIONS: usize = 4096;
const WORDS: usize = POSITIONS / 64;
const NONE: u32 = u32::MAX;

/// How far ahead a deadline can lie before it is split: 32.8 s.
pub const HORIZON: Duration = Duration::from_millis(8 * (POSITIONS as u64 - 1));

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn due(wheel: &mut Expiry, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| wheel.take_due(now)).collect()
    }

    #[test]
    fn a_deadline_fires_once_and_never_early() {
        let t0 = Instant::now();
        let mut wheel = Expiry::new(t0, 8);
        wheel.schedule(3, t0 + Duration::from_millis(250));
        assert!(due(&mut wheel, t0 + Duration::from_millis(249)).is_empty());
        assert_eq!(due(&mut wheel, t0 + Duration::from_millis(258)), [3]);
        assert!(due(&mut wheel, t0 + Duration::from_secs(60)).is_empty());
    }

    #[test]
    fn a_second_deadline_replaces_the_first() {
        let t0 = Instant::now();
        let mut wheel = Expiry::new(t0, 8);
        wheel.schedule(1, t0 + Duration::from_millis(100));
        wheel.schedule(1, t0 + Duration::from_millis(900));
        assert!(due(&mut wheel, t0 + Duration::from_millis(500)).is_empty());
        assert_eq!(due(&mut wheel, t0 + Duration::from_secs(1)), [1]);
    }

    #[test]
    fn a_session_that_schedules_itself_for_the_past_fires_in_the_next_tick_and_not_forever() {
        let t0 = Instant::now();
        let mut wheel = Expiry::new(t0, 8);
        wheel.schedule(1, t0);
        let now = t0 + Duration::from_secs(1);
        assert_eq!(wheel.take_due(now), Some(1));
        wheel.schedule(1, t0);
        assert_eq!(wheel.take_due(t0 + Duration::from_millis(15)), None);
        assert_eq!(wheel.take_due(now + TICK), Some(1));
    }

    #[test]
    fn the_next_deadline_of_an_empty_wheel_is_none() {
        let t0 = Instant::now();
        let mut wheel = Expiry::new(t0, 8);
        assert_eq!(wheel.next_deadline(), None);
        wheel.schedule(0, t0 + Duration::from_millis(8));
        assert_eq!(wheel.next_deadline(), Some(t0 + Duration::from_millis(8)));
        wheel.cancel(0);
        assert_eq!(wheel.next_deadline(), None);
    }

    proptest! {
        /// The model: a map from slot to deadline, scanned whole.
        #[test]
        fn the_wheel_fires_what_a_plain_map_would(
            steps in prop::collection::vec((0_u32..40, 0_u64..20_000, 0_u64..400, any::<bool>()), 1..300)
        ) {
            let t0 = Instant::now();
            let mut wheel = Expiry::new(t0, 4);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for (slot, ahead, pass, cancel) in steps {
                if cancel {
                    wheel.cancel(slot);
                    model.remove(&slot);
                } else {
                    wheel.schedule(slot, t0 + Duration::from_millis(now + ahead));
                    model.insert(slot, now + ahead);
                }
                now += pass;
                let instant = t0 + Duration::from_millis(now);
                while let Some(slot) = wheel.take_due(instant) {
                    let deadline = model.remove(&slot);
                    prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                }
                // Two ticks of slack: one for rounding up, one because the current tick takes no more.
                prop_assert!(model.values().all(|&deadline| deadline + 16 >= now));
                prop_assert_eq!(wheel.next_deadline().is_some(), !model.is_empty());
            }
        }
    }
}
