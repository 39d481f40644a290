//! tokio as its tutorial has it: a runtime in the thread, a loop over the socket of the clients, and
//! a task per session for the way back.
#![allow(
    unsafe_code,
    reason = "tokio wants a promise about the descriptor of the stop; nothing else here is unsafe"
)]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::quality::RandomState;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::runtime;
use tokio::sync::mpsc;

use super::{DATAGRAM_MAX, Task};
use super::{connected, received, sent};

pub(super) fn run(task: Task) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    // Dropping the runtime ends all tasks.
    runtime.block_on(async {
        let stop = Arc::clone(&task.stop);
        // SAFETY: the registration shares the ownership of the descriptor, which therefore stays the
        // same and open for as long as the registration lives.
        let stop = unsafe { AsyncFd::register_with_interest(stop, Interest::READABLE) }?;
        task.begin();
        let clients = Arc::new(UdpSocket::from_std(task.clients)?);
        let (failed, mut failures) = mpsc::channel(1);
        let relay = tokio::spawn(relay_clients(clients, task.origin, failed));
        tokio::select! {
            stop = stop.readable() => {
                // It stays readable for the other threads.
                stop?.retain_ready();
                Ok(())
            }
            ended = relay => ended?,
            Some(error) = failures.recv() => Err(error),
        }
    })
}

/// `failed` takes the first error of a session's task.
async fn relay_clients(
    clients: Arc<UdpSocket>,
    origin: SocketAddr,
    failed: mpsc::Sender<io::Error>,
) -> io::Result<()> {
    let mut sessions: HashMap<SocketAddr, Arc<UdpSocket>, RandomState> = HashMap::default();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let Some((length, client)) = received(clients.recv_from(&mut buffer).await)? else {
            continue;
        };
        let session = match sessions.get(&client) {
            Some(session) => session,
            None => {
                let socket = Arc::new(UdpSocket::from_std(connected(origin)?)?);
                let back = relay_origin(Arc::clone(&socket), Arc::clone(&clients), client);
                let failed = failed.clone();
                tokio::spawn(async move {
                    if let Err(error) = back.await {
                        // One error ends the relay; there is no room for a second, and no need.
                        let _ = failed.try_send(error);
                    }
                });
                sessions.entry(client).or_insert(socket)
            }
        };
        if let Some(bytes) = buffer.get(..length) {
            sent(session.send(bytes).await)?;
        }
    }
}

async fn relay_origin(
    session: Arc<UdpSocket>,
    clients: Arc<UdpSocket>,
    client: SocketAddr,
) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let Some(length) = received(session.recv(&mut buffer).await)? else {
            continue;
        };
        if let Some(bytes) = buffer.get(..length) {
            sent(clients.send_to(bytes, client).await)?;
        }
    }
}
