//! Merges the datagrams of one wake-up into as few sends as order allows (`UDP_SEGMENT`, Linux
//! 4.18).
//!
//! A segmented send is one message whose payload the kernel or the device cuts into datagrams of
//! equal size. Only what has already arrived is merged; nothing waits here for more. Datagrams of
//! different routes may overtake each other inside a batch, datagrams of one route never do.
//!
//! A batch points into the receive buffers and copies nothing. It neither reads nor writes through
//! those pointers: that is up to the kernel, and whoever hands a message to the kernel keeps the
//! buffers until then.

use std::hash::BuildHasher;
use std::ops::Range;

use libc::iovec;

use crate::shard::{Port, Route};

/// The datagrams that one wake-up forwards, in arrival order within each route.
///
/// `push` them, `seal` the batch once, send its `messages`, `clear` it. All memory is reserved at
/// the start.
pub(super) struct Batch {
    flows: Vec<Flow>,
    index: FlowIndex,
    runs: Vec<Run>,
    /// Flow of the last datagram.
    current: u32,
    datagrams: usize,
    bytes: usize,
    messages: Vec<Message>,
    pieces: Vec<iovec>,
}

/// One send: one datagram, or several of equal size of which the last may be shorter.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) route: Route,
    /// Bytes of each datagram but the last.
    pub(super) segment: usize,
    /// Datagrams.
    pub(super) segments: u32,
    pub(super) bytes: usize,
    /// It did not leave, and that has been dealt with.
    pub(super) failed: bool,
    pieces: Range<usize>,
}

/// The runs of one route, chained in arrival order.
struct Flow {
    route: Route,
    first: u32,
    last: u32,
}

/// Datagrams that lie one behind the other in memory: all of `segment` bytes, the last may be
/// shorter.
#[derive(Clone, Copy)]
struct Run {
    start: *const u8,
    len: usize,
    segment: usize,
    segments: usize,
    next: u32,
}

impl Batch {
    /// Datagrams in a batch. It bounds the memory, and how long the first one waits for the last; a
    /// fuller wake-up makes several batches.
    pub(super) const DATAGRAMS_MAX: usize = 2048;

    pub(super) fn new() -> Self {
        Self {
            flows: Vec::with_capacity(Self::DATAGRAMS_MAX),
            index: FlowIndex::new(Self::DATAGRAMS_MAX),
            runs: Vec::with_capacity(Self::DATAGRAMS_MAX),
            current: NONE,
            datagrams: 0,
            bytes: 0,
            messages: Vec::with_capacity(Self::DATAGRAMS_MAX),
            pieces: Vec::with_capacity(Self::DATAGRAMS_MAX),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams == 0
    }

    /// Whether the batch has to leave before the next `push`.
    pub(super) fn is_full(&self) -> bool {
        self.datagrams >= Self::DATAGRAMS_MAX
    }

    /// Datagrams in it.
    pub(super) fn len(&self) -> usize {
        self.datagrams
    }

    /// Of payload.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Different ones.
    pub(super) fn routes(&self) -> usize {
        self.flows.len()
    }

    /// Puts one datagram behind the others of its route. Its bytes stay where they are until
    /// `clear`.
    pub(super) fn push(&mut self, route: Route, datagram: &[u8]) {
        self.datagrams += 1;
        self.bytes += datagram.len();
        let flow = self.flow(route);
        self.current = flow;
        let Some(flow) = self.flows.get_mut(flow as usize) else {
            return;
        };
        let position = self.runs.len() as u32;
        if let Some(last) = self.runs.get_mut(flow.last as usize) {
            if last.extend(datagram) {
                return;
            }
            last.next = position;
        }
        flow.last = position;
        if flow.first == NONE {
            flow.first = position;
        }
        self.runs.push(Run::new(datagram));
    }

    /// Route of the datagram that was pushed last.
    pub(super) fn last_route(&self) -> Option<Route> {
        self.flows.get(self.current as usize).map(|flow| flow.route)
    }

    /// Cuts the runs into messages. `segmented` says whether the port takes segmented sends.
    pub(super) fn seal(&mut self, mut segmented: impl FnMut(Port) -> bool) {
        for flow in &self.flows {
            let segments_max = if segmented(flow.route.port) { SEGMENTS_MAX } else { 1 };
            let mut cutter = Cutter {
                route: flow.route,
                segments_max,
                messages: &mut self.messages,
                pieces: &mut self.pieces,
                is_open: false,
            };
            let mut position = flow.first;
            while let Some(run) = self.runs.get(position as usize) {
                cutter.take(*run);
                position = run.next;
            }
        }
    }

    /// What `seal` made, in the order in which it has to leave.
    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub(super) fn message_mut(&mut self, position: usize) -> Option<&mut Message> {
        self.messages.get_mut(position)
    }

    /// Where the bytes of a message lie. No datagram is spread over two pieces.
    pub(super) fn pieces(&self, message: &Message) -> &[iovec] {
        self.pieces.get(message.pieces.clone()).unwrap_or_default()
    }

    /// The datagrams of a message one by one.
    pub(super) fn datagrams(&self, message: &Message) -> impl Iterator<Item = iovec> {
        let segment = message.segment.max(1);
        self.pieces(message).iter().flat_map(move |piece| {
            let datagrams = piece.iov_len.div_ceil(segment).max(1);
            (0..datagrams).map(move |i| iovec {
                iov_base: piece.iov_base.wrapping_byte_add(i * segment),
                iov_len: segment.min(piece.iov_len - i * segment),
            })
        })
    }

    /// Forgets everything. The buffers may go back afterwards.
    pub(super) fn clear(&mut self) {
        self.flows.clear();
        self.index.clear();
        self.runs.clear();
        self.current = NONE;
        self.datagrams = 0;
        self.bytes = 0;
        self.messages.clear();
        self.pieces.clear();
    }

    /// Position of the route's flow, a new one where there is none.
    fn flow(&mut self, route: Route) -> u32 {
        match self.flows.get(self.current as usize) {
            // The common case: a burst of one session.
            Some(flow) if flow.route == route => return self.current,
            Some(_) | None => {}
        }
        let newest = self.flows.len() as u32;
        let found = self.index.find_or_insert(route, newest, &self.flows);
        if found == newest {
            self.flows.push(Flow { route, first: NONE, last: NONE });
        }
        found
    }
}

impl Run {
    fn new(datagram: &[u8]) -> Self {
        let len = datagram.len();
        Self { start: datagram.as_ptr(), len, segment: len, segments: 1, next: NONE }
    }

    /// Takes `datagram` in if it lies right behind the run and fits its pattern.
    fn extend(&mut self, datagram: &[u8]) -> bool {
        let is_open = self.len == self.segments * self.segment;
        let follows = self.start.wrapping_add(self.len) == datagram.as_ptr();
        let fits = !datagram.is_empty() && datagram.len() <= self.segment;
        let extends = is_open && follows && fits;
        if extends {
            self.len += datagram.len();
            self.segments += 1;
        }
        extends
    }

    /// Cuts the first `segments` off.
    fn split_front(&mut self, segments: usize) -> Self {
        let len = self.len.min(segments * self.segment);
        let front = Self { len, segments, ..*self };
        self.start = self.start.wrapping_add(len);
        self.len -= len;
        self.segments -= segments;
        front
    }

    /// Bytes of the first datagram.
    fn first_len(&self) -> usize {
        self.segment.min(self.len)
    }
}

/// Turns the runs of one flow into messages.
struct Cutter<'a> {
    route: Route,
    segments_max: usize,
    messages: &'a mut Vec<Message>,
    pieces: &'a mut Vec<iovec>,
    /// Whether the last message belongs to this flow and all its datagrams are of full size.
    is_open: bool,
}

impl Cutter<'_> {
    fn take(&mut self, mut run: Run) {
        while run.segments > 0 {
            let room = self.room_for(&run);
            if room == 0 {
                self.open(&run);
            } else {
                let front = run.split_front(room.min(run.segments));
                self.append(&front);
            }
        }
    }

    /// How many datagrams of `run` the open message can take.
    fn room_for(&self, run: &Run) -> usize {
        let Some(message) = self.messages.last().filter(|_| self.is_open) else {
            return 0;
        };
        let segments = message.segments as usize;
        let first = run.first_len();
        if segments == 0 {
            // A message just opened takes at least one, whatever its size.
            let by_bytes = BYTES_MAX.checked_div(first).unwrap_or(1);
            by_bytes.min(self.segments_max).max(1)
        } else if segments >= self.segments_max || first == 0 || first > message.segment {
            0
        } else if first < message.segment {
            usize::from(message.bytes + first <= BYTES_MAX)
        } else {
            // A datagram larger than that left alone, and nothing joins it.
            let by_bytes = BYTES_MAX.saturating_sub(message.bytes) / first;
            by_bytes.min(self.segments_max - segments)
        }
    }

    fn open(&mut self, run: &Run) {
        let start = self.pieces.len();
        self.messages.push(Message {
            route: self.route,
            segment: run.first_len(),
            segments: 0,
            bytes: 0,
            failed: false,
            pieces: start..start,
        });
        self.is_open = true;
    }

    fn append(&mut self, front: &Run) {
        let Some(message) = self.messages.last_mut() else {
            return;
        };
        self.pieces.push(iovec { iov_base: front.start.cast_mut().cast(), iov_len: front.len });
        message.pieces.end = self.pieces.len();
        message.segments += front.segments as u32;
        message.bytes += front.len;
        // An empty datagram cannot be a segment, and a short one must be the last.
        self.is_open =
            message.segment > 0 && message.bytes == message.segment * message.segments as usize;
    }
}

/// Finds the flow of a route: open addressing, half full at most.
///
/// Every slot carries the number of the batch that filled it, so that `clear` costs nothing.
struct FlowIndex {
    slots: Box<[(u32, u32)]>,
    batch: u32,
    hasher: foldhash::fast::RandomState,
}

impl FlowIndex {
    fn new(flows_max: usize) -> Self {
        let slots = (2 * flows_max).next_power_of_two();
        Self {
            slots: vec![(0, NONE); slots].into_boxed_slice(),
            batch: 1,
            hasher: foldhash::fast::RandomState::default(),
        }
    }

    /// The flow of `route`, or `newest` if there is none; then it is that one from now on.
    fn find_or_insert(&mut self, route: Route, newest: u32, flows: &[Flow]) -> u32 {
        let mask = self.slots.len() - 1;
        let mut position = self.hasher.hash_one(route) as usize & mask;
        while let Some((batch, flow)) = self.slots.get_mut(position) {
            if *batch != self.batch {
                (*batch, *flow) = (self.batch, newest);
                break;
            }
            if flows.get(*flow as usize).is_some_and(|flow| flow.route == route) {
                return *flow;
            }
            position = (position + 1) & mask;
        }
        newest
    }

    fn clear(&mut self) {
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            // Slots of four billion batches ago would look current.
            self.slots.fill((0, NONE));
            self.batch = 1;
        }
    }
}

/// Datagrams in one send: what older kernels take (`UDP_MAX_SEGMENTS`); Linux 6.18 takes 128.
const SEGMENTS_MAX: usize = 64;

/// Bytes in one send. The IPv4 total length ends at 65,507 bytes of payload.
const BYTES_MAX: usize = 65_000;

/// No run, no flow.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::SessionKey;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Name, datagrams as (route, length), messages as (route, segment, lengths).
    type Case = (&'static str, &'static [(u32, usize)], &'static [(u32, usize, &'static [usize])]);

    fn route(slot: u32) -> Route {
        Route { port: Port::Session(SessionKey { slot, generation: 0 }), to: None }
    }

    /// Pushes `(route, length)` from one stretch of memory and returns `(route, segment, lengths)`
    /// per message.
    fn merged(datagrams: &[(u32, usize)], is_segmented: bool) -> Vec<(u32, usize, Vec<usize>)> {
        let memory = vec![0; datagrams.iter().map(|(_, len)| len).sum()];
        let mut batch = Batch::new();
        let mut at = 0;
        for &(slot, len) in datagrams {
            batch.push(route(slot), &memory[at..at + len]);
            at += len;
        }
        batch.seal(|_| is_segmented);
        let messages = batch.messages().iter();
        messages
            .map(|message| {
                let Port::Session(key) = message.route.port else { unreachable!() };
                let lengths = batch.datagrams(message).map(|piece| piece.iov_len).collect();
                (key.slot, message.segment, lengths)
            })
            .collect()
    }

    #[test]
    fn datagrams_merge_while_they_are_equal_and_only_the_last_is_shorter() {
        let table: &[Case] = &[
            ("one alone", &[(0, 9)], &[(0, 9, &[9])]),
            ("equal ones", &[(0, 9), (0, 9), (0, 9)], &[(0, 9, &[9, 9, 9])]),
            ("a shorter last", &[(0, 9), (0, 9), (0, 4)], &[(0, 9, &[9, 9, 4])]),
            ("a shorter one ends it", &[(0, 9), (0, 4), (0, 9)], &[(0, 9, &[9, 4]), (0, 9, &[9])]),
            (
                "nothing follows a short one",
                &[(0, 9), (0, 4), (0, 4)],
                &[(0, 9, &[9, 4]), (0, 4, &[4])],
            ),
            ("a longer one opens anew", &[(0, 4), (0, 9)], &[(0, 4, &[4]), (0, 9, &[9])]),
            (
                "an empty one stays alone",
                &[(0, 9), (0, 0), (0, 9)],
                &[(0, 9, &[9]), (0, 0, &[0]), (0, 9, &[9])],
            ),
            ("two empty ones", &[(0, 0), (0, 0)], &[(0, 0, &[0]), (0, 0, &[0])]),
            (
                "routes that alternate",
                &[(0, 9), (1, 9), (0, 9), (1, 9)],
                &[(0, 9, &[9, 9]), (1, 9, &[9, 9])],
            ),
            (
                "a route that returns with a short one",
                &[(0, 9), (1, 9), (0, 4), (0, 9)],
                &[(0, 9, &[9, 4]), (0, 9, &[9]), (1, 9, &[9])],
            ),
        ];
        for (name, datagrams, expected) in table {
            let expected: Vec<_> =
                expected.iter().map(|(slot, size, lens)| (*slot, *size, lens.to_vec())).collect();
            assert_eq!(merged(datagrams, true), expected, "{name}");
        }
    }

    #[test]
    fn a_send_ends_at_64_datagrams() {
        let messages = merged(&[(0, 100); 65], true);
        assert_eq!(messages.iter().map(|(_, _, lens)| lens.len()).collect::<Vec<_>>(), [64, 1]);
    }

    #[test]
    fn a_send_ends_at_49_datagrams_of_1316_bytes() {
        let messages = merged(&[(0, 1316); 50], true);
        assert_eq!(messages.iter().map(|(_, _, lens)| lens.len()).collect::<Vec<_>>(), [49, 1]);
    }

    #[test]
    fn a_port_without_segmentation_sends_one_by_one() {
        let messages = merged(&[(0, 9), (0, 9), (0, 0)], false);
        assert_eq!(messages, [(0, 9, vec![9]), (0, 9, vec![9]), (0, 0, vec![0])]);
    }

    #[test]
    fn a_datagram_larger_than_a_segmented_send_leaves_alone() {
        let messages = merged(&[(0, 65_400), (0, 65_400)], true);
        assert_eq!(messages.len(), 2);
    }

    #[test]
    fn neighbours_in_memory_are_one_piece_and_strangers_are_not() {
        let (near, far) = ([0; 30], [0; 10]);
        let mut batch = Batch::new();
        batch.push(route(0), &near[..10]);
        batch.push(route(0), &near[10..20]);
        batch.push(route(0), &far);
        batch.push(route(0), &near[20..]);
        batch.seal(|_| true);
        let [message] = batch.messages() else { panic!("one message") };
        let pieces = batch.pieces(message).iter();
        assert_eq!(pieces.map(|piece| piece.iov_len).collect::<Vec<_>>(), [20, 10, 10]);
    }

    #[test]
    fn a_cleared_batch_knows_nothing_of_the_one_before() {
        let memory = [0; 20];
        let mut batch = Batch::new();
        for slot in 0..3 {
            batch.push(route(slot), &memory[..10]);
        }
        batch.seal(|_| true);
        batch.clear();
        assert!(batch.is_empty());
        batch.push(route(2), &memory[10..]);
        batch.seal(|_| true);
        assert_eq!(batch.messages().len(), 1);
        assert_eq!(batch.messages()[0].route, route(2));
    }

    fn lengths() -> impl Strategy<Value = usize> {
        prop_oneof![Just(0), Just(40), Just(1316), 0_usize..1500, 64_900_usize..65_508]
    }

    proptest! {
        #[test]
        fn every_route_keeps_its_datagrams_and_their_order(
            datagrams in proptest::collection::vec(
                (0_u32..5, lengths()),
                0..400,
            ),
            is_segmented in any::<bool>(),
        ) {
            let memory = vec![0_u8; datagrams.iter().map(|(_, len)| len).sum()];
            let mut batch = Batch::new();
            let mut expected: HashMap<Route, Vec<(usize, usize)>> = HashMap::new();
            let mut at = 0;
            for &(slot, len) in &datagrams {
                let bytes = &memory[at..at + len];
                batch.push(route(slot), bytes);
                expected.entry(route(slot)).or_default().push((bytes.as_ptr().addr(), len));
                at += len;
            }
            batch.seal(|_| is_segmented);

            let mut sent: HashMap<Route, Vec<(usize, usize)>> = HashMap::new();
            for message in batch.messages() {
                let datagrams: Vec<_> = batch
                    .datagrams(message)
                    .map(|piece| (piece.iov_base.addr(), piece.iov_len))
                    .collect();
                prop_assert_eq!(datagrams.len(), message.segments as usize);
                let segments_max = if is_segmented { SEGMENTS_MAX } else { 1 };
                prop_assert!(datagrams.len() <= segments_max);
                prop_assert!(message.bytes <= BYTES_MAX || datagrams.len() == 1);
                let (last, full) = datagrams.split_last().unwrap();
                prop_assert!(full.iter().all(|(_, len)| *len == message.segment));
                prop_assert!(last.1 <= message.segment);
                prop_assert!(last.1 > 0 || full.is_empty());
                sent.entry(message.route).or_default().extend(datagrams);
            }
            prop_assert_eq!(sent, expected);
        }
    }
}
