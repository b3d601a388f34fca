//! The body of an upload on its way in. Counts its bytes, stops it at its limit, and distinguishes a failing client from
//! failing storage. Gathers pieces into parts, so that an upload holds one part and never the whole body.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};

use super::{BoxError, Error};
use crate::pace::Pace;

pub(super) struct Source<'a> {
    stream: Pin<&'a mut (dyn Stream<Item = Result<Bytes, BoxError>> + Send)>,
    /// Bytes of the last piece that lie beyond the end of the last part.
    rest: Bytes,
    taken: u64,
    limit: u64,
    pace: Pace,
    pause_max: Duration,
}

impl<'a> Source<'a> {
    pub(super) fn new(
        stream: Pin<&'a mut (dyn Stream<Item = Result<Bytes, BoxError>> + Send)>,
        limit: u64,
        pause_max: Duration,
    ) -> Self {
        Self {
            stream,
            rest: Bytes::new(),
            taken: 0,
            limit,
            pace: Pace::new(pause_max),
            pause_max,
        }
    }

    /// Bytes received so far; at the end, the length of the body.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns the next piece as received, or `None` at the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let began = Instant::now();
        let piece = tokio::time::timeout(self.pace.wait_max(), self.stream.try_next())
            .await
            .map_err(|_| Error::SourceStalled {
                limit: self.pause_max,
            })?
            .map_err(Error::Source)?;
        if let Some(piece) = &piece {
            self.pace.moved(piece.len(), began.elapsed());
            self.taken = self.taken.saturating_add(piece.len() as u64);
            if self.taken > self.limit {
                return Err(Error::TooLarge { limit: self.limit });
            }
        }
        Ok(piece)
    }

    /// Returns the next `size` bytes; fewer only at the end of the body, and none after it.
    pub(super) async fn part(&mut self, size: usize) -> Result<Bytes, Error> {
        let mut part = BytesMut::new();
        while part.len() < size {
            let Some(mut piece) = self.piece().await? else {
                break;
            };
            let room = size - part.len();
            if piece.len() > room {
                self.rest = piece.split_off(room);
            }
            part.extend_from_slice(&piece);
        }
        Ok(part.freeze())
    }
}
