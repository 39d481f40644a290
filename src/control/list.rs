//! The list of all sessions, written while it is read: those of the shards, then those that no
//! shard has yet.
//!
//! It may have tens of megabytes. Page by page it needs the memory of one page, holds nobody up
//! while it becomes text, and asks a shard for no more than its reader takes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::admin::Api;
use super::ask::{Expected, Page};
use super::http::REQUEST_TIMEOUT;
use super::view::SessionEntry;
use crate::shard::command::RtcId;

/// The answer to who asks for all sessions. `slot` is held until the last byte is taken.
pub(super) async fn sessions(api: Api, slot: OwnedSemaphorePermit) -> Response {
    let (sender, mut chunks) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut list = SessionList { sender, text: br#"{"sessions":["#.to_vec(), is_first: true };
        if list.write(&api).await.is_err() {
            // Its reader sees that the answer broke off.
            tracing::debug!("a list of sessions was not read to its end");
        }
    });
    let body = match chunks.recv().await {
        // Its length is known, and simple clients like that better.
        Some(Chunk { text, is_last: true }) => Body::from(text),
        first => Body::new(Chunks { first, chunks, is_complete: false, _slot: slot }),
    };
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

struct SessionList {
    sender: mpsc::Sender<Chunk>,
    /// What has not been sent.
    text: Vec<u8>,
    is_first: bool,
}

struct Chunk {
    text: Vec<u8>,
    is_last: bool,
}

/// Nobody takes the list any more, or not fast enough.
struct BrokenOff;

impl SessionList {
    async fn write(&mut self, api: &Api) -> Result<(), BrokenOff> {
        let mut silent_shards = Vec::new();
        for shard in 0..api.shards() {
            let mut from_slot = Some(0);
            while let Some(slot) = from_slot {
                match api.page(shard, slot, PAGE).await {
                    Some(Page { sessions, next_slot }) => {
                        self.append(&sessions)?;
                        if self.text.len() >= CHUNK_MIN {
                            self.send(false).await?;
                        }
                        // A page that does not move on would be asked for for ever.
                        from_slot = next_slot.filter(|next| *next > slot);
                    }
                    None => {
                        silent_shards.push(shard);
                        from_slot = None;
                    }
                }
            }
        }
        let mut from = Some(RtcId(0));
        while let Some(id) = from {
            // Without an answer the relay is stopping, and so is whoever reads this.
            let Expected { sessions, next } =
                api.expected(id, PAGE as usize).await.ok_or(BrokenOff)?;
            self.append(&sessions)?;
            if self.text.len() >= CHUNK_MIN {
                self.send(false).await?;
            }
            from = next;
        }
        self.finish(&silent_shards)?;
        self.send(true).await
    }

    fn append(&mut self, sessions: &[SessionEntry]) -> Result<(), BrokenOff> {
        for session in sessions {
            if !std::mem::take(&mut self.is_first) {
                self.text.push(b',');
            }
            serde_json::to_writer(&mut self.text, session).map_err(|_| BrokenOff)?;
        }
        Ok(())
    }

    fn finish(&mut self, silent_shards: &[u16]) -> Result<(), BrokenOff> {
        self.text.push(b']');
        if !silent_shards.is_empty() {
            self.text.extend(br#","silent_shards":"#);
            serde_json::to_writer(&mut self.text, silent_shards).map_err(|_| BrokenOff)?;
        }
        self.text.push(b'}');
        Ok(())
    }

    async fn send(&mut self, is_last: bool) -> Result<(), BrokenOff> {
        let chunk = Chunk { text: std::mem::take(&mut self.text), is_last };
        self.sender.send_timeout(chunk, REQUEST_TIMEOUT).await.map_err(|_| BrokenOff)
    }
}

/// The body of the answer.
struct Chunks {
    first: Option<Chunk>,
    chunks: mpsc::Receiver<Chunk>,
    is_complete: bool,
    _slot: OwnedSemaphorePermit,
}

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(self.chunks.poll_recv(context)),
        };
        Poll::Ready(match next {
            Some(Chunk { text, is_last }) => {
                self.is_complete = is_last;
                Some(Ok(Frame::data(text.into())))
            }
            None if self.is_complete => None,
            // Without an error half a list would look like a whole one.
            None => Some(Err(io::ErrorKind::BrokenPipe.into())),
        })
    }
}

/// Sessions per question to a shard, which answers between two batches of datagrams.
const PAGE: u32 = 256;
/// Bytes of an answer that is not the whole list: about one page.
const CHUNK_MIN: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::*;

    fn body() -> (mpsc::Sender<Chunk>, Chunks) {
        let (sender, chunks) = mpsc::channel(4);
        let slot = Semaphore::new(1);
        let slot = std::sync::Arc::new(slot).try_acquire_owned().unwrap();
        let first = Some(Chunk { text: b"[1".to_vec(), is_last: false });
        (sender, Chunks { first, chunks, is_complete: false, _slot: slot })
    }

    #[tokio::test]
    async fn chunks_are_read_in_order_up_to_the_last() {
        let (sender, body) = body();
        let last = Chunk { text: b",2]".to_vec(), is_last: true };
        assert!(sender.send(last).await.is_ok());
        drop(sender);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "[1,2]");
    }

    #[tokio::test]
    async fn a_list_that_breaks_off_does_not_look_like_a_whole_one() {
        let (sender, body) = body();
        drop(sender);
        assert!(body.collect().await.is_err());
    }
}
