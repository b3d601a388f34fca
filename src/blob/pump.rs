//! Bodies on their way to a client. A task reads from storage and passes the pieces on through a channel of capacity
//! one, so that it notices a client that does not read. Such a client stops polling its body as well, and would
//! otherwise hold its slot and its connection to storage for as long as it likes. It keeps them while no other request
//! waits for a slot; then it gives both back, and continues with a request of its own once its client reads again.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{BoxStream, try_unfold};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::backend::Backend;
use super::metrics::{Metrics, Op};
use super::pool::Pool;
use super::{Error, exact};
use crate::pace::Pace;
use crate::turnstile::{Owner, Place};

type Pieces = BoxStream<'static, Result<Bytes, Error>>;
type Sender = mpsc::Sender<Result<Bytes, Error>>;

/// How long a client may pause before its slot goes to a request that waits for one.
const YIELD_AFTER: Duration = Duration::from_millis(500);

/// A range of an object that is streamed, in several requests if its client pauses.
pub(super) struct Streaming {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) pool: Pool,
    pub(super) metrics: Metrics,
    pub(super) owner: Owner,
    pub(super) key: String,
    /// What is left of the range.
    pub(super) range: Range<u64>,
    /// Longest pause of the client.
    pub(super) pause_max: Duration,
}

/// A slot, and what is read from storage while it is held.
struct Open(Pieces, #[expect(dead_code, reason = "held")] Place);

impl Streaming {
    /// Yields the range. A task on `tracker` reads it and holds a slot. A reader that resumes too late gets
    /// [`Error::TakerStalled`].
    pub(super) async fn start(self, tracker: &TaskTracker) -> Result<Pieces, Error> {
        let (sender, receiver) = mpsc::channel(1);
        let (want, pause_max) = (self.left(), self.pause_max);
        let open = self.open().await?;
        tracker.spawn(self.run(open, sender));
        let received = try_unfold((receiver, 0), move |(mut receiver, got)| async move {
            if got == want {
                return Ok(None);
            }
            let piece: Result<Bytes, Error> = receiver
                .recv()
                .await
                .unwrap_or_else(|| Err(Error::TakerStalled { limit: pause_max }));
            let piece = piece?;
            let got = got + piece.len() as u64;
            Ok(Some((piece, (receiver, got))))
        });
        Ok(received.into_stream().boxed())
    }

    fn left(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Waits for a slot and requests what is left.
    async fn open(&self) -> Result<Open, Error> {
        let slot = self.pool.slot(self.owner).await?;
        let opened = self.backend.stream(&self.key, self.range.clone());
        let pieces = self.metrics.count(Op::Get, opened).await?;
        let exact = exact::exact(pieces, self.key.clone(), self.left());
        let failures = self.metrics.clone();
        let counted = exact.inspect_err(move |_| failures.failed(Op::Get));
        Ok(Open(Box::pin(counted), slot))
    }

    async fn run(mut self, open: Open, sender: Sender) {
        let mut pace = Pace::new(self.pause_max);
        let mut open = Some(open);
        while self.left() > 0 {
            let piece = tokio::select! {
                piece = self.next(&mut open) => piece,
                () = sender.closed() => return,
            };
            let Some(piece) = piece else { return };
            let bytes = piece.as_ref().map_or(0, Bytes::len);
            let began = Instant::now();
            let Ok(Ok(permit)) = timeout(pace.wait_max(), self.taken(&mut open, &sender)).await
            else {
                return;
            };
            let is_over = piece.is_err();
            permit.send(piece);
            if is_over {
                return;
            }
            self.range.start += bytes as u64;
            pace.moved(bytes, began.elapsed());
        }
    }

    /// The next piece, for which a slot is taken again if it was given back.
    async fn next(&self, open: &mut Option<Open>) -> Option<Result<Bytes, Error>> {
        let Open(pieces, _) = match open {
            Some(open) => open,
            None => match self.open().await {
                Ok(again) => open.insert(again),
                Err(error) => return Some(Err(error)),
            },
        };
        pieces.next().await
    }

    /// Waits until the client takes a piece. Gives the slot back when it does not and another request waits for one.
    async fn taken<'s>(
        &self,
        open: &mut Option<Open>,
        sender: &'s Sender,
    ) -> Result<mpsc::Permit<'s, Result<Bytes, Error>>, mpsc::error::SendError<()>> {
        while open.is_some() {
            if let Ok(permit) = timeout(YIELD_AFTER, sender.reserve()).await {
                return permit;
            }
            if self.pool.is_waited_for() {
                *open = None;
            }
        }
        sender.reserve().await
    }
}
