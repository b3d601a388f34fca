//! Turns pieces read from storage into exactly the bytes of the range, or an error. Some servers and proxies make a cut
//! connection look like the end of a body, and short data must never pass for a payload (I5).

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, try_unfold};
use futures_util::{Stream, TryStreamExt};

use super::Error;

/// Longest wait for the next piece of a body after the reader asked for it.
const PIECE_WAIT: Duration = Duration::from_secs(10);

/// Yields `pieces`, and fails with [`Error::Truncated`] when they end before `want` bytes.
pub(super) fn exact(
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    key: String,
    want: u64,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    try_unfold((pieces, key, 0), move |(mut pieces, key, got)| async move {
        if got == want {
            return Ok(None);
        }
        let piece = tokio::time::timeout(PIECE_WAIT, pieces.try_next())
            .await
            .map_err(Error::unavailable("reading a body"))??;
        let Some(piece) = piece else {
            return Err(Error::Truncated {
                key,
                expected: want,
                got,
            });
        };
        let now = got + piece.len() as u64;
        if now > want {
            return Err(Error::unavailable("reading a body")(format!(
                "{now} bytes of {key} instead of {want}"
            )));
        }
        Ok(Some((piece, (pieces, key, now))))
    })
}
