//! Many clients at the door: offers posted by a few threads, answers handed to the thread that does
//! the media, and the DELETEs at the end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::clock::{self, SECOND};
use crate::http::{self, Answer, Request};
use crate::payload;
use crate::sockets::loopback_source;
use crate::webrtc::sdp::{self, Credentials};

/// Whom to ask.
#[derive(Clone, Copy, Debug)]
pub struct Invitation {
    /// The relay's or origin's HTTP.
    pub http: SocketAddr,
    /// Clients that may ask at the same time: one order each.
    pub sessions: usize,
    /// Each client asks from the address that its media come from.
    pub has_own_addresses: bool,
    /// For credentials.
    pub seed: u64,
}

/// What a client is to do at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Whose place it takes.
    pub slot: usize,
    /// How many have had that place before.
    pub generation: u64,
    /// When the pacing wants it to ask.
    pub due_ns: u64,
    /// What it asks for.
    pub wish: Wish,
    /// What to DELETE before: the session of the one that it replaces.
    pub leaves: Option<String>,
}

/// What one client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// `app/stream`
    pub path: String,
    /// Publish rather than play.
    pub publishes: bool,
}

/// What one client was told.
#[derive(Debug)]
pub struct Reply {
    /// Whose.
    pub slot: usize,
    /// When the offer was due, in monotonic nanoseconds: a queue at the door counts, the time for
    /// the goodbye of an earlier client does not.
    pub due_ns: u64,
    /// When the offer left.
    pub asked_ns: u64,
    /// Whether the server has ended the earlier session.
    pub has_left: bool,
    /// The session, or the status of a refusal: 0 where there was no usable answer.
    pub result: Result<Admission, u16>,
}

/// A session that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Of the client.
    pub own: Credentials,
    /// Of the origin.
    pub remote: Credentials,
    /// Where the media go.
    pub candidate: SocketAddr,
    /// What to DELETE in the end.
    pub location: Option<String>,
}

/// The threads that ask. Dropping it stops them.
pub struct Signalling {
    orders: Option<SyncSender<Order>>,
    replies: Receiver<Reply>,
    is_stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Signalling {
    /// Begins to wait for orders.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(invitation: Invitation) -> std::io::Result<Self> {
        // Room for an order and a reply of every client: nobody ever waits for the other side.
        let (orders, taken) = sync_channel(invitation.sessions);
        let (post, replies) = sync_channel(invitation.sessions);
        let is_stopping = Arc::<AtomicBool>::default();
        let mut signalling =
            Self { orders: Some(orders), replies, is_stopping, threads: Vec::new() };
        let taken = Arc::new(Mutex::new(taken));
        for _ in 0..THREADS {
            let (taken, post) = (Arc::clone(&taken), post.clone());
            let is_stopping = Arc::clone(&signalling.is_stopping);
            let thread = std::thread::Builder::new().name("signalling".to_owned());
            signalling
                .threads
                .push(thread.spawn(move || serve(&invitation, &taken, &is_stopping, &post))?);
        }
        Ok(signalling)
    }

    /// Has a client ask. Whether there was room for the order, as there is while no client has more
    /// than one.
    pub fn ask(&self, order: Order) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok())
    }

    /// Ends the threads, after the requests under way, and gives the replies that were not taken:
    /// sessions among them have been granted and want to be ended.
    pub fn stop(mut self) -> Vec<Reply> {
        self.join();
        self.replies.try_iter().collect()
    }

    fn join(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        // Ends the wait for the next order.
        self.orders = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }

    /// A reply that has come.
    #[must_use]
    pub fn reply(&self) -> Option<Reply> {
        self.replies.try_recv().ok()
    }
}

impl Drop for Signalling {
    fn drop(&mut self) {
        self.join();
    }
}

fn serve(
    invitation: &Invitation,
    taken: &Mutex<Receiver<Order>>,
    is_stopping: &AtomicBool,
    post: &SyncSender<Reply>,
) {
    loop {
        // One thread waits for the order, the others for the lock.
        let order = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(order) = order else { return };
        if is_stopping.load(Ordering::Relaxed) {
            return;
        }
        let begun_ns = clock::now();
        let leaves = order.leaves.as_deref();
        let has_left = leaves.is_some_and(|target| delete(invitation, order.slot, target));
        let asked_ns = clock::now();
        let due_ns = order.due_ns + (asked_ns - begun_ns);
        let result = ask(invitation, &order);
        // Nobody is left to be told when the media's thread has ended.
        if post.send(Reply { slot: order.slot, due_ns, asked_ns, has_left, result }).is_err() {
            return;
        }
    }
}

fn ask(invitation: &Invitation, order: &Order) -> Result<Admission, u16> {
    let Order { slot, generation, wish, .. } = order;
    let client = payload::mix(*slot as u64 ^ payload::mix(*generation));
    let own = Credentials::of_client(invitation.seed ^ client);
    let offer = sdp::offer(&own, payload::identity(&wish.path), wish.publishes);
    let endpoint = if wish.publishes { "whip" } else { "whep" };
    let (app, stream) = wish.path.split_once('/').unwrap_or(("live", &wish.path));
    let target = format!("/rtc/v1/{endpoint}/?app={app}&stream={stream}");
    let request = Request {
        method: "POST",
        target: &target,
        body: Some(("application/sdp", &offer)),
        from: source(invitation, *slot),
    };
    let answer = http::exchange(invitation.http, request).map_err(|_| 0_u16)?;
    if answer.status != 201 {
        return Err(answer.status);
    }
    read(own, &answer).ok_or(0)
}

/// Ends a session. Whether the server has ended it.
fn delete(invitation: &Invitation, slot: usize, target: &str) -> bool {
    let from = source(invitation, slot);
    let request = Request { method: "DELETE", target, body: None, from };
    http::exchange(invitation.http, request).is_ok_and(|answer| answer.status == 200)
}

/// What a 201 grants. `None` if a client could do nothing with it.
fn read(own: Credentials, answer: &Answer) -> Option<Admission> {
    Some(Admission {
        own,
        remote: Credentials::read(&answer.body)?,
        candidate: sdp::first_candidate(&answer.body)?,
        location: answer.header("location").map(target_of),
    })
}

/// The path and query of a `Location`, which may be a whole URL.
fn target_of(location: &str) -> String {
    if location.starts_with('/') {
        return location.to_owned();
    }
    let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/").to_owned()
}

/// Ends sessions by DELETE, a few at a time. Returns how many of them the server has ended.
#[must_use]
pub fn delete_all(invitation: &Invitation, locations: &[(usize, String)]) -> u64 {
    let deadline = clock::now() + DELETE_PATIENCE;
    let (next, deleted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while clock::now() < deadline
                    && let Some((slot, target)) =
                        locations.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let is_done = delete(invitation, *slot, target);
                    deleted.fetch_add(usize::from(is_done), Ordering::Relaxed);
                }
            });
        }
    });
    deleted.into_inner() as u64
}

fn source(invitation: &Invitation, slot: usize) -> Option<Ipv4Addr> {
    invitation.has_own_addresses.then(|| loopback_source(slot))
}

const THREADS: usize = 4;
const DELETE_PATIENCE: u64 = 10 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(head: &str, body: &str) -> Option<Admission> {
        let answer = Answer { status: 201, head: head.to_owned(), body: body.to_owned() };
        read(Credentials::of_client(1), &answer)
    }

    #[test]
    fn an_answer_grants_a_path_and_a_session_to_end() {
        let origin = Credentials::of_origin(2);
        let offer = sdp::offer(&Credentials::of_client(1), 7, true);
        let body = sdp::answer(&offer, &origin, "127.0.0.1:8000".parse().unwrap(), false);
        let head = "HTTP/1.1 201 Created\r\nLocation: /rtc/v1/session/x";
        let admission = answered(head, &body).unwrap();
        assert_eq!(admission.remote, origin);
        assert_eq!(admission.candidate, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(admission.location.as_deref(), Some("/rtc/v1/session/x"));
    }

    #[test]
    fn an_answer_without_a_candidate_grants_nothing() {
        assert_eq!(
            answered("HTTP/1.1 201 Created", "v=0\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\n"),
            None
        );
    }

    #[test]
    fn a_client_that_nobody_answers_is_told_so_and_when_it_was_due() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        // Nobody listens on the TCP port of that number, or it is somebody else who refuses.
        let http = closed.local_addr().unwrap();
        let invitation = Invitation { http, sessions: 1, has_own_addresses: false, seed: 1 };
        let signalling = Signalling::start(invitation).unwrap();
        let wish = Wish { path: "live/a".to_owned(), publishes: true };
        assert!(signalling.ask(Order { slot: 0, generation: 0, due_ns: 5, wish, leaves: None }));
        let reply = signalling.replies.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        assert_eq!((reply.slot, reply.has_left), (0, false));
        assert!(reply.due_ns < SECOND && reply.result.is_err());
    }

    #[test]
    fn a_location_may_be_a_whole_url() {
        assert_eq!(target_of("/a?b=c://d/e"), "/a?b=c://d/e");
        assert_eq!(target_of("http://h:1/a?b=c"), "/a?b=c");
        assert_eq!(target_of("http://h:1"), "/");
    }
}
