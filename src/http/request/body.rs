//! Request bodies: read into memory up to a limit, or streamed if they are longer. Each wait for the next bytes is
//! bounded, by the deadline of the request or by a timeout of its own. So a client that stops sending does not hold
//! resources for long (I9).

use std::time::Duration;

use api::limits::{BODY_IDLE_SECONDS, RAW_BODY_BYTES_MAX};
use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;

use super::digest;
use super::held::{Held, SHORT_BYTES};
use crate::engine::Error;
use crate::http::answer::problem::Refusal;

/// Shorter in unit tests.
const IDLE: Duration = if cfg!(test) {
    Duration::from_millis(50)
} else {
    Duration::from_secs(BODY_IDLE_SECONDS)
};

/// Bytes by which a body of unknown length is counted.
const STEP_BYTES: usize = 256 << 10;

/// The next bytes of a body; `None` at its end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Error> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(digest::read_error(&error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Like [`next`], but fails if the client stops sending. The timer is on the heap: requests with a short body need
/// none, and would carry it.
async fn next_in_time(body: &mut Body) -> Result<Option<Bytes>, Error> {
    let next = Box::pin(tokio::time::timeout(IDLE, next(body))).await;
    next.map_err(|_| Error::BodyStalled)?
}

/// The result of [`prefix`].
enum Prefix {
    /// The whole body.
    Whole(Bytes),
    /// The body is longer than the limit; the bytes read so far.
    Longer(Bytes),
}

/// Reads up to `max` bytes. A body that arrives in one piece, as nearly all do, is not copied. A long one is counted in
/// `held`.
async fn prefix(body: &mut Body, max: usize, held: Option<&Held>) -> Result<Prefix, Error> {
    let upper = body.size_hint().upper();
    let mut counted = 0;
    // A short body by its announced length needs no timeout: the deadline of the request covers it.
    let first = if let Some(bytes) = upper.filter(|bytes| *bytes <= max as u64) {
        if let Some(held) = held {
            counted = usize::try_from(bytes).unwrap_or(max);
            held.take(counted)?;
        }
        next(body).await?
    } else {
        next_in_time(body).await?
    };
    let Some(first) = first else {
        return Ok(Prefix::Whole(Bytes::new()));
    };
    if first.len() > max {
        return Ok(Prefix::Longer(first));
    }
    if body.is_end_stream() {
        return Ok(Prefix::Whole(first));
    }
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut bytes = BytesMut::with_capacity(first.len() + announced.min(max - first.len()));
    bytes.extend_from_slice(&first);
    while let Some(more) = next_in_time(body).await? {
        let needed = bytes.len() + more.len();
        if let Some(held) = held
            && needed > counted.max(SHORT_BYTES)
        {
            let counted_then = needed.next_multiple_of(STEP_BYTES);
            held.take(counted_then - counted)?;
            counted = counted_then;
        }
        bytes.extend_from_slice(&more);
        if bytes.len() > max {
            return Ok(Prefix::Longer(bytes.freeze()));
        }
    }
    Ok(Prefix::Whole(bytes.freeze()))
}

fn too_large(what: &'static str, max: u64) -> Error {
    Error::TooLarge { what, max }
}

/// Reads a whole body of at most `max` bytes. A long one is counted in `held`.
pub(in crate::http) async fn whole(
    mut body: Body,
    (what, max): (&'static str, usize),
    held: Option<&Held>,
) -> Result<Bytes, Refusal> {
    // The announced length is over the limit: refused before any byte is read.
    if body.size_hint().lower() > max as u64 {
        return Err(too_large(what, max as u64).into());
    }
    match prefix(&mut body, max, held).await? {
        Prefix::Whole(bytes) => Ok(bytes),
        Prefix::Longer(_) => Err(too_large(what, max as u64).into()),
    }
}

/// The body of a raw publish.
pub(in crate::http) enum Raw {
    /// The body is in memory.
    Held(Bytes),
    /// The body is a stream, which ends with an error at the limit of raw bodies.
    Streamed(BoxStream<'static, Result<Bytes, Error>>),
}

/// Reads a body of up to `held_max` bytes into memory; returns a longer one as a stream. A long one in memory is counted
/// in `held`.
pub(in crate::http) async fn raw(
    mut body: Body,
    held_max: usize,
    held: Option<&Held>,
) -> Result<Raw, Refusal> {
    let announced = body.size_hint().lower();
    if announced > RAW_BODY_BYTES_MAX {
        return Err(too_large("the body", RAW_BODY_BYTES_MAX).into());
    }
    if announced > held_max as u64 {
        return Ok(Raw::Streamed(limited(Bytes::new(), body)));
    }
    Ok(match prefix(&mut body, held_max, held).await? {
        Prefix::Whole(bytes) => Raw::Held(bytes),
        Prefix::Longer(read) => Raw::Streamed(limited(read, body)),
    })
}

/// A stream of the bytes that were read already and the rest, up to the limit of raw bodies.
fn limited(read: Bytes, body: Body) -> BoxStream<'static, Result<Bytes, Error>> {
    let rest = stream::try_unfold(body, |mut body| async move {
        let bytes = next_in_time(&mut body).await?;
        Ok::<_, Error>(bytes.map(|bytes| (bytes, body)))
    });
    let first = stream::iter((!read.is_empty()).then_some(Ok(read)));
    let mut left = RAW_BODY_BYTES_MAX;
    first
        .chain(rest)
        .and_then(move |bytes: Bytes| {
            let fits = left.checked_sub(bytes.len() as u64);
            left = fits.unwrap_or(0);
            let checked = fits.map(|_| bytes);
            std::future::ready(checked.ok_or_else(|| too_large("the body", RAW_BODY_BYTES_MAX)))
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;

    use super::*;
    use crate::engine::held::Budget;

    fn pieces(sizes: &[usize]) -> Body {
        let pieces: Vec<_> = sizes
            .iter()
            .map(|n| Ok::<_, Error>(vec![b'x'; *n]))
            .collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_is_held_up_to_the_limit_and_streamed_whole_beyond_it() {
        let held = raw(pieces(&[3, 4, 3]), 10, None).await.unwrap();
        assert!(matches!(held, Raw::Held(bytes) if bytes.len() == 10));
        for body in [pieces(&[3, 4, 4]), pieces(&[11]), Body::from(vec![0; 11])] {
            let Raw::Streamed(stream) = raw(body, 10, None).await.unwrap() else {
                panic!("held");
            };
            let bytes: Vec<Bytes> = stream.try_collect().await.unwrap();
            assert_eq!(bytes.concat().len(), 11);
        }
    }

    #[tokio::test]
    async fn a_stream_that_passes_the_limit_ends_with_an_error_that_names_it() {
        let mut sizes = vec![1 << 20; 100];
        sizes.push(1);
        let Raw::Streamed(stream) = raw(pieces(&sizes), 10, None).await.unwrap() else {
            panic!("held");
        };
        let error = stream.try_for_each(|_| async { Ok(()) }).await.unwrap_err();
        assert_eq!(error.to_string(), "the body has more than 104857600 bytes");
    }

    #[tokio::test]
    async fn a_client_that_pauses_for_too_long_is_told_so_whether_its_body_is_held_or_streams() {
        let stalls = |bytes: usize| {
            let piece = stream::iter([Ok::<_, Error>(vec![b'x'; bytes])]);
            Body::from_stream(piece.chain(stream::pending()))
        };
        let held = whole(stalls(1), ("the request", 10), None)
            .await
            .unwrap_err();
        assert!(format!("{held:?}").contains("RequestTimeout"), "{held:?}");
        let Raw::Streamed(stream) = raw(stalls(11), 10, None).await.unwrap() else {
            panic!("held");
        };
        let streamed: Result<Vec<Bytes>, Error> = stream.try_collect().await;
        assert!(matches!(streamed.unwrap_err(), Error::BodyStalled));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_whether_announced_or_not() {
        for body in [Body::from(vec![0; 11]), pieces(&[5, 6])] {
            let refusal = whole(body, ("the request", 10), None).await.unwrap_err();
            assert!(format!("{refusal:?}").contains("more than 10 bytes"));
        }
    }

    #[tokio::test]
    async fn a_long_body_takes_its_bytes_of_the_budget_until_its_request_ends() {
        let tenant = crate::engine::Tenant(crate::store::TenantId::new(1));
        let (budget, max) = (Budget::new(3 << 20), 4 << 20);
        let read = async |body: Body, is_coded: bool| {
            let mut request = Request::new(body);
            let held = Held::of(&mut request, &budget, is_coded);
            if let Some(held) = &held {
                held.belongs_to(tenant);
            }
            let read = whole(request.into_body(), ("it", max), held.as_ref()).await;
            (held, read.map(|bytes| bytes.len()))
        };
        let announced = |bytes: usize| Body::from(vec![0; bytes]);
        let (first, one) = read(announced(1 << 20), false).await;
        assert_eq!(one.unwrap(), 1 << 20);
        let (second, two) = read(pieces(&[100_000; 8]), false).await;
        assert_eq!(two.unwrap(), 800_000);
        for (body, is_coded) in [
            (announced(1 << 20), false),
            (pieces(&[100_000; 8]), false),
            (pieces(&[100_000; 4]), true),
        ] {
            let refused = read(body, is_coded).await.1.unwrap_err();
            assert!(format!("{refused:?}").contains("HeldBodies"), "{refused:?}");
        }
        // A short body is not counted.
        let (none, short) = read(announced(SHORT_BYTES), false).await;
        assert!(none.is_none() && short.is_ok());
        drop((first, second));
        let (_held, all) = read(announced(2 << 20), false).await;
        assert!(all.is_ok());
    }
}
