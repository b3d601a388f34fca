//! Bodies on their way to a client. A task reads from storage and passes the pieces on through a channel of capacity
//! one, so that it notices a client that does not read. Such a client stops polling its body as well, and would
//! otherwise hold its slot and its connection to storage for as long as it likes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{BoxStream, try_unfold};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::Error;
use super::pace::Pace;

type Pieces = BoxStream<'static, Result<Bytes, Error>>;

/// Yields `pieces`, which amount to `want` bytes. A task on `tracker` reads them and holds `slot` while the reader
/// keeps its pace. A reader that resumes too late gets [`Error::TakerStalled`].
pub(super) fn pump(
    mut pieces: Pieces,
    want: u64,
    pause_max: Duration,
    slot: impl Send + 'static,
    tracker: &TaskTracker,
) -> Pieces {
    let (sender, receiver) = mpsc::channel(1);
    tracker.spawn(async move {
        let _slot = slot;
        let mut pace = Pace::new(pause_max);
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = sender.closed() => return,
            };
            let Some(piece) = piece else { return };
            let bytes = piece.as_ref().map_or(0, Bytes::len);
            let began = Instant::now();
            if sender.send_timeout(piece, pace.wait_max()).await.is_err() {
                return;
            }
            pace.moved(bytes, began.elapsed());
        }
    });
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
    received.into_stream().boxed()
}
