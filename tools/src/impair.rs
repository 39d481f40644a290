//! A bad network made by arithmetic: loss, duplicates, reordering and delay of what a station sends.
//!
//! Many kernels come without netem, and netem counts nothing per test. An [`Impairer`] is pure: time
//! and datagrams in, datagrams out, every fate drawn from a seed and counted, so that what a receiver
//! finds missing can be held against what was thrown away. It keeps at most [`BYTES_MAX`] of
//! datagrams and drops new ones above that, as a full router queue does.
//!
//! Only reordering reorders: delays vary by the jitter, but within a route no datagram overtakes
//! another because of it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;

use crate::batch::Route;
use crate::clock::MILLISECOND;
use crate::payload;

/// What becomes of datagrams on their way. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Probability that it comes twice.
    pub duplicate: f64,
    /// Probability that a media packet is held back.
    pub reorder: f64,
    /// Media packets of the same route that overtake one held back.
    pub reorder_distance: u16,
    /// Each datagram takes this much longer.
    pub delay_ns: u64,
    /// ... give or take this much, evenly distributed.
    pub jitter_ns: u64,
}

impl Impairment {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let Self { loss, duplicate, reorder, delay_ns, jitter_ns, .. } = *self;
        loss <= 0.0 && duplicate <= 0.0 && reorder <= 0.0 && delay_ns == 0 && jitter_ns == 0
    }
}

/// The command line's way to say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "A bad network, made on the sending side")]
pub struct ImpairArguments {
    /// Lose this share of the datagrams, such as 1%
    #[arg(long, default_value = "0%", value_parser = share)]
    loss: f64,
    /// Send this share of the datagrams twice
    #[arg(long, default_value = "0%", value_parser = share)]
    duplicate: f64,
    /// Let this share of the media packets be overtaken
    #[arg(long, default_value = "0%", value_parser = share)]
    reorder: f64,
    /// ... by so many packets of the same session
    #[arg(
        long,
        default_value_t = 3,
        value_name = "PACKETS",
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    reorder_distance: u16,
    /// Hold back each datagram for so long
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// ... give or take so much
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    jitter: Duration,
}

impl ImpairArguments {
    /// What it asks for.
    #[must_use]
    pub fn impairment(&self) -> Impairment {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4);
        Impairment {
            loss: self.loss,
            duplicate: self.duplicate,
            reorder: self.reorder,
            reorder_distance: self.reorder_distance,
            delay_ns: nanoseconds(self.delay),
            jitter_ns: nanoseconds(self.jitter),
        }
    }
}

/// Reads `0.5%` as 0.005.
fn share(text: &str) -> anyhow::Result<f64> {
    let number = text.strip_suffix('%').map(|number| number.trim().parse::<f64>());
    let Some(Ok(percent)) = number else {
        anyhow::bail!("a share ends with a per cent sign, such as 1% or 0.5%");
    };
    ensure!((0.0..=100.0).contains(&percent), "a share lies between 0% and 100%");
    Ok(percent / 100.0)
}

/// What was done to datagrams so far. Media are counted apart: they alone are numbered, and a
/// receiver can say which are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Impaired {
    /// Media packets lost.
    pub lost: u64,
    /// Media packets sent twice.
    pub duplicated: u64,
    /// Media packets that a later one of their route has overtaken.
    pub reordered: u64,
    /// Media packets dropped because the queue was full: lost as well.
    pub overflowed: u64,
    /// Other datagrams lost, for either reason.
    pub control_lost: u64,
    /// Other datagrams sent twice.
    pub control_duplicated: u64,
}

impl Impaired {
    /// Media packets that a receiver will miss.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.lost + self.overflowed
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            overflowed: self.overflowed + other.overflowed,
            control_lost: self.control_lost + other.control_lost,
            control_duplicated: self.control_duplicated + other.control_duplicated,
        }
    }
}

/// What a datagram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A numbered media packet.
    Media,
    /// Handshakes, checks, acknowledgements.
    Control,
}

/// Datagrams on a bad way.
#[derive(Debug)]
pub struct Impairer {
    settings: Impairment,
    /// Draws so far, mixed with the seed.
    draws: u64,
    /// By when they are let go, then by when they came.
    delayed: BinaryHeap<Reverse<Delayed>>,
    serial: u64,
    flows: HashMap<FlowKey, Flow>,
    /// Which held packets are to be let go when, if nobody overtakes them; in order.
    patience: VecDeque<(u64, FlowKey, u64)>,
    /// Of all that is delayed or held.
    bytes: usize,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
    impaired: Impaired,
}

type FlowKey = (usize, SocketAddr, Option<Ipv4Addr>);

/// What has to stay in order.
#[derive(Debug, Default)]
struct Flow {
    /// When its last datagram is let go.
    last_at: u64,
    /// Media packets that wait to be overtaken, oldest first.
    held: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    serial: u64,
    route: Route,
    bytes: Vec<u8>,
    is_twice: bool,
    overtaken_by: u16,
}

#[derive(Debug)]
struct Delayed {
    at: u64,
    serial: u64,
    route: Route,
    bytes: Vec<u8>,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

impl Impairer {
    /// `None` when `settings` change nothing: then there is nothing to pay for either.
    #[must_use]
    pub fn new(settings: Impairment, seed: u64) -> Option<Self> {
        (!settings.is_none()).then(|| Self {
            settings,
            draws: payload::mix(seed),
            delayed: BinaryHeap::new(),
            serial: 0,
            flows: HashMap::new(),
            patience: VecDeque::new(),
            bytes: 0,
            spare: Vec::new(),
            impaired: Impaired::default(),
        })
    }

    /// What was done so far.
    #[must_use]
    pub fn impaired(&self) -> Impaired {
        self.impaired
    }

    /// When [`Impairer::release`] has something to do.
    #[must_use]
    pub fn next_at(&self) -> u64 {
        let delayed = self.delayed.peek().map_or(u64::MAX, |Reverse(delayed)| delayed.at);
        self.patience.front().map_or(delayed, |(at, ..)| delayed.min(*at))
    }

    /// Takes a datagram. What leaves at once goes to `out`: this datagram, or ones that it has
    /// overtaken, or none.
    pub fn offer(
        &mut self,
        now_ns: u64,
        route: Route,
        bytes: &[u8],
        content: Content,
        out: &mut impl FnMut(Route, &[u8]),
    ) {
        let is_media = content == Content::Media;
        if self.draw(self.settings.loss) {
            *if is_media { &mut self.impaired.lost } else { &mut self.impaired.control_lost } += 1;
            return;
        }
        let is_twice = self.draw(self.settings.duplicate);
        if is_media && self.draw(self.settings.reorder) && self.has_room(bytes.len()) {
            self.hold(now_ns, route, bytes, is_twice);
            return;
        }
        self.pass(now_ns, route, bytes, content, is_twice, out);
        if is_media && self.settings.reorder > 0.0 {
            self.overtake(now_ns, route, out);
        }
    }

    /// Lets go what is due.
    pub fn release(&mut self, now_ns: u64, out: &mut impl FnMut(Route, &[u8])) {
        while let Some((_, key, serial)) = self.patience.pop_front_if(|(at, ..)| *at <= now_ns) {
            while let Some(held) = self.unhold(&key, |held| held.serial <= serial) {
                self.let_go(now_ns, held, out);
            }
        }
        while self.delayed.peek().is_some_and(|Reverse(delayed)| delayed.at <= now_ns)
            && let Some(Reverse(delayed)) = self.delayed.pop()
        {
            out(delayed.route, &delayed.bytes);
            self.bytes -= delayed.bytes.len();
            self.recycle(delayed.bytes);
        }
    }

    /// Lets media packets of `route` go that wait to be overtaken: its stream ends, and what comes
    /// after its end counts for nobody.
    pub fn settle(&mut self, now_ns: u64, route: Route, out: &mut impl FnMut(Route, &[u8])) {
        while let Some(held) = self.unhold(&key(route), |_| true) {
            self.let_go(now_ns, held, out);
        }
    }

    /// Lets everything go at once: the end of a test, after which nothing more may be on its way.
    pub fn drain(&mut self, out: &mut impl FnMut(Route, &[u8])) {
        // The first pass may turn held packets into delayed ones, due at the end of time.
        self.release(u64::MAX, out);
        self.release(u64::MAX, out);
    }

    /// Lets a datagram on its way, once or twice.
    fn pass(
        &mut self,
        now_ns: u64,
        route: Route,
        bytes: &[u8],
        content: Content,
        is_twice: bool,
        out: &mut impl FnMut(Route, &[u8]),
    ) {
        let is_media = content == Content::Media;
        if !self.delay(now_ns, route, bytes, out) {
            let Impaired { overflowed, control_lost, .. } = &mut self.impaired;
            *if is_media { overflowed } else { control_lost } += 1;
        } else if is_twice && self.delay(now_ns, route, bytes, out) {
            let Impaired { duplicated, control_duplicated, .. } = &mut self.impaired;
            *if is_media { duplicated } else { control_duplicated } += 1;
        }
    }

    /// Whether the datagram is on its way now; otherwise there was no room for it.
    fn delay(
        &mut self,
        now_ns: u64,
        route: Route,
        bytes: &[u8],
        out: &mut impl FnMut(Route, &[u8]),
    ) -> bool {
        let Impairment { delay_ns, jitter_ns, .. } = self.settings;
        if delay_ns == 0 && jitter_ns == 0 {
            out(route, bytes);
            return true;
        }
        if !self.has_room(bytes.len()) {
            return false;
        }
        let shift = self.draw_below(jitter_ns.saturating_mul(2).saturating_add(1));
        let flow = self.flow(now_ns, key(route));
        let at = now_ns.saturating_add(delay_ns).saturating_add(shift).saturating_sub(jitter_ns);
        let at = at.max(flow.last_at).max(now_ns);
        flow.last_at = at;
        let (serial, bytes) = (self.next_serial(), self.keep(bytes));
        self.delayed.push(Reverse(Delayed { at, serial, route, bytes }));
        true
    }

    fn hold(&mut self, now_ns: u64, route: Route, bytes: &[u8], is_twice: bool) {
        let (serial, bytes) = (self.next_serial(), self.keep(bytes));
        let held = Held { serial, route, bytes, is_twice, overtaken_by: 0 };
        self.flow(now_ns, key(route)).held.push_back(held);
        self.patience.push_back((now_ns.saturating_add(HOLD_MAX), key(route), serial));
    }

    /// A media packet of `route` has passed: those held that enough have overtaken follow it.
    fn overtake(&mut self, now_ns: u64, route: Route, out: &mut impl FnMut(Route, &[u8])) {
        let Some(flow) = self.flows.get_mut(&key(route)) else {
            return;
        };
        flow.held.iter_mut().for_each(|held| held.overtaken_by += 1);
        let distance = self.settings.reorder_distance.max(1);
        while let Some(held) = self.unhold(&key(route), |held| held.overtaken_by >= distance) {
            self.let_go(now_ns, held, out);
        }
    }

    fn unhold(&mut self, key: &FlowKey, is_over: impl Fn(&Held) -> bool) -> Option<Held> {
        self.flows.get_mut(key)?.held.pop_front_if(|held| is_over(held))
    }

    fn let_go(&mut self, now_ns: u64, held: Held, out: &mut impl FnMut(Route, &[u8])) {
        let Held { route, bytes, is_twice, overtaken_by, .. } = held;
        self.bytes -= bytes.len();
        let before = self.impaired.overflowed;
        self.pass(now_ns, route, &bytes, Content::Media, is_twice, out);
        let has_passed = self.impaired.overflowed == before;
        self.impaired.reordered += u64::from(has_passed && overtaken_by > 0);
        self.recycle(bytes);
    }

    fn flow(&mut self, now_ns: u64, key: FlowKey) -> &mut Flow {
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&key) {
            self.flows.retain(|_, flow| flow.last_at > now_ns || !flow.held.is_empty());
        }
        self.flows.entry(key).or_default()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= BYTES_MAX
    }

    fn keep(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(bytes);
        self.bytes += kept.len();
        kept
    }

    fn recycle(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(bytes);
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// True with this probability. What is never asked for draws nothing.
    fn draw(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        // 53 bits are what a double holds exactly.
        let fraction = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        fraction < probability
    }

    fn draw_below(&mut self, bound: u64) -> u64 {
        if bound <= 1 { 0 } else { self.random() % bound }
    }

    fn random(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(1);
        payload::mix(self.draws)
    }
}

fn key(route: Route) -> FlowKey {
    (route.socket, route.to, route.from)
}

/// Datagrams on their way, in bytes: 50,000 of 1,316 bytes, or a second of 500 Mbit/s.
pub const BYTES_MAX: usize = 64 << 20;
/// Above it, routes on which nothing is on its way are forgotten.
const FLOWS_MAX: usize = 1 << 16;
const SPARE_MAX: usize = 1 << 10;
/// A packet held back that nobody overtakes, as at the end of a stream, goes on after this long.
const HOLD_MAX: u64 = 200 * MILLISECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Order, Stamp, Tally};
    use proptest::prelude::*;

    const ROUTE: Route = Route {
        socket: 0,
        to: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9),
        from: None,
    };
    const NONE: Impairment = Impairment {
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        reorder_distance: 3,
        delay_ns: 0,
        jitter_ns: 0,
    };
    const STREAM: u64 = 7;

    /// Sends `packets` media packets 1 ms apart over `flows` routes; gives what arrives, when.
    fn journey(
        settings: Impairment,
        seed: u64,
        packets: u64,
        flows: u16,
    ) -> (Vec<(u64, Route, Vec<u8>)>, Impaired) {
        let mut impairer = Impairer::new(settings, seed).unwrap();
        let mut arrived = Vec::new();
        for number in 0..packets {
            let now = number * MILLISECOND;
            let flow = number % u64::from(flows);
            let to = SocketAddr::new(ROUTE.to.ip(), flow as u16 + 1);
            let mut packet = vec![0; payload::LEN_MIN];
            let sequence = number / u64::from(flows);
            Stamp { stream: STREAM, sequence, intended_ns: now, sent_ns: now }.write(&mut packet);
            let mut out = |route, bytes: &[u8]| arrived.push((now, route, bytes.to_vec()));
            impairer.release(now, &mut out);
            let route = Route { to, ..ROUTE };
            impairer.offer(now, route, &packet, Content::Media, &mut out);
        }
        let end = packets * MILLISECOND;
        impairer.drain(&mut |route, bytes| arrived.push((end, route, bytes.to_vec())));
        assert_eq!((impairer.bytes, impairer.next_at()), (0, u64::MAX));
        (arrived, impairer.impaired())
    }

    /// What a receiver says of each route, added up.
    fn judged(arrived: &[(u64, Route, Vec<u8>)]) -> Tally {
        let mut tally = Tally::default();
        let mut orders: HashMap<SocketAddr, Order> = HashMap::new();
        for (_, route, bytes) in arrived {
            tally.judge(orders.entry(route.to).or_default(), STREAM, bytes);
        }
        tally
    }

    proptest! {
        #[test]
        fn a_receiver_finds_exactly_what_was_counted(
            seed: u64,
            packets in 1_u64..600,
            flows in 1_u16..5,
            loss in 0.0..0.3_f64,
            duplicate in 0.0..0.3_f64,
            reorder in 0.0..0.3_f64,
            reorder_distance in 1_u16..20,
            delay_ms in 0_u64..30,
            jitter_ms in 0_u64..30,
        ) {
            let settings = Impairment {
                loss,
                duplicate,
                // Something has to be asked for.
                reorder: reorder + 1e-9,
                reorder_distance,
                delay_ns: delay_ms * MILLISECOND,
                jitter_ns: jitter_ms * MILLISECOND,
            };
            let (arrived, impaired) = journey(settings, seed, packets, flows);
            let tally = judged(&arrived);
            prop_assert_eq!(tally.received, packets - impaired.missing());
            prop_assert_eq!(tally.duplicates, impaired.duplicated);
            prop_assert_eq!(tally.reordered, impaired.reordered);
            prop_assert_eq!(tally.damaged + tally.foreign, 0);
        }

        #[test]
        fn the_same_seed_gives_the_same_journey(seed: u64, loss in 0.01..0.5_f64) {
            let settings = Impairment { loss, jitter_ns: MILLISECOND, ..NONE };
            prop_assert_eq!(journey(settings, seed, 200, 2), journey(settings, seed, 200, 2));
        }

        #[test]
        fn a_delay_is_kept_within_its_jitter_and_within_the_order(
            seed: u64,
            delay_ms in 5_u64..50,
            jitter_ms in 0_u64..5,
        ) {
            let (delay_ns, jitter_ns) = (delay_ms * MILLISECOND, jitter_ms * MILLISECOND);
            let settings = Impairment { delay_ns, jitter_ns, ..NONE };
            let (arrived, _) = journey(settings, seed, 300, 1);
            let tally = judged(&arrived);
            prop_assert_eq!(tally, Tally { received: 300, ..Tally::default() });
            let end = 300 * MILLISECOND;
            for (at, _, bytes) in arrived.iter().filter(|(at, ..)| *at < end) {
                let payload::Reading::Stamped(stamp) = Stamp::read(bytes) else {
                    panic!("a damaged packet");
                };
                // The test looks once per millisecond.
                let took = at - stamp.sent_ns;
                prop_assert!(took >= delay_ns - jitter_ns);
                prop_assert!(took <= delay_ns + jitter_ns + MILLISECOND);
            }
        }
    }

    #[test]
    fn nothing_asked_for_is_nothing_there() {
        assert!(Impairer::new(NONE, 1).is_none());
        assert!(Impairer::new(Impairment::default(), 1).is_none());
    }

    #[test]
    fn the_share_that_is_lost_is_the_one_asked_for() {
        let (arrived, impaired) = journey(Impairment { loss: 0.01, ..NONE }, 1, 100_000, 1);
        assert!((800..1_200).contains(&impaired.lost), "{}", impaired.lost);
        assert_eq!(arrived.len() as u64, 100_000 - impaired.lost);
    }

    #[test]
    fn a_packet_held_back_is_overtaken_by_the_distance() {
        let settings = Impairment { reorder: 0.02, reorder_distance: 5, ..NONE };
        let (arrived, impaired) = journey(settings, 3, 1_000, 1);
        assert!(impaired.reordered > 5);
        let sequences: Vec<u64> = arrived
            .iter()
            .map(|(_, _, bytes)| match Stamp::read(bytes) {
                payload::Reading::Stamped(stamp) => stamp.sequence,
                payload::Reading::Damaged | payload::Reading::Foreign => panic!("damaged"),
            })
            .collect();
        let furthest =
            sequences.iter().enumerate().map(|(place, s)| place as i64 - *s as i64).max();
        // Five that pass directly; others held back at the same time follow it.
        assert_eq!(furthest, Some(5));
    }

    #[test]
    fn control_is_lost_too_and_counted_apart_and_never_held_back() {
        let settings = Impairment { loss: 0.5, reorder: 1.0, ..NONE };
        let mut impairer = Impairer::new(settings, 1).unwrap();
        let mut passed = 0;
        for _ in 0..100 {
            impairer.offer(0, ROUTE, b"check", Content::Control, &mut |_, _| passed += 1);
        }
        let impaired = impairer.impaired();
        assert_eq!(impaired.control_lost, 100 - passed);
        assert_eq!((impaired.lost, impaired.reordered, impairer.bytes), (0, 0, 0));
    }

    #[test]
    fn a_full_queue_drops_what_comes_and_counts_it() {
        let settings = Impairment { delay_ns: MILLISECOND, ..NONE };
        let mut impairer = Impairer::new(settings, 1).unwrap();
        let packet = vec![0; 1 << 20];
        for _ in 0..100 {
            impairer.offer(0, ROUTE, &packet, Content::Media, &mut |_, _| panic!("too early"));
        }
        assert_eq!(impairer.impaired().overflowed, 36);
        let mut arrived = 0;
        impairer.release(MILLISECOND, &mut |_, _| arrived += 1);
        assert_eq!((arrived, impairer.bytes), (64, 0));
    }

    #[test]
    fn a_packet_that_nobody_overtakes_goes_on_and_is_not_reordered() {
        let settings = Impairment { reorder: 1.0, ..NONE };
        let mut impairer = Impairer::new(settings, 1).unwrap();
        impairer.offer(5, ROUTE, b"media", Content::Media, &mut |_, _| panic!("not held back"));
        assert_eq!(impairer.next_at(), 5 + HOLD_MAX);
        let mut arrived = 0;
        impairer.release(5 + HOLD_MAX, &mut |_, _| arrived += 1);
        assert_eq!((arrived, impairer.impaired()), (1, Impaired::default()));
    }

    #[test]
    fn a_stream_that_ends_takes_its_held_packets_along() {
        let settings = Impairment { reorder: 1.0, ..NONE };
        let mut impairer = Impairer::new(settings, 1).unwrap();
        impairer.offer(5, ROUTE, b"media", Content::Media, &mut |_, _| panic!("not held back"));
        let mut arrived = 0;
        impairer.settle(6, ROUTE, &mut |_, _| arrived += 1);
        assert_eq!((arrived, impairer.bytes), (1, 0));
    }

    #[test]
    fn shares_are_written_with_a_per_cent_sign() {
        assert!((share("0.5%").unwrap() - 0.005).abs() < 1e-12);
        assert!(share("1").unwrap_err().to_string().contains("1%"));
        assert!(share("101%").is_err());
    }
}
