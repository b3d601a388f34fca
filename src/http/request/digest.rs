//! Integrity of bodies: `Content-Digest` and `Repr-Digest` (RFC 9530). `layer` calls this only for requests with one of
//! them, so that every route checks them, before the body is decoded: a digest covers the bytes as sent. For a request
//! the two are the same, because it never carries a part of a representation. All digests of a known algorithm must
//! match; a digest that cannot be checked is refused. A response gets a digest if its body is in memory.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use api::{FieldError, Problem};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use sha2::{Digest, Sha256, Sha512};

use crate::engine::Error;
use crate::http::answer::problem::Refusal;

pub(in crate::http) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
pub(in crate::http) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");

/// Digests of one request, which cost a pass over the body each.
const DIGESTS_MAX: usize = 4;

/// A digest that the body must have.
struct Expected {
    header: HeaderName,
    hash: Vec<u8>,
    hasher: Hasher,
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn of(algorithm: &str) -> Option<Self> {
        match algorithm {
            "sha-256" => Some(Self::Sha256(Sha256::new())),
            "sha-512" => Some(Self::Sha512(Sha512::new())),
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Sha256(_) => 32,
            Self::Sha512(_) => 64,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finalize(self) -> Vec<u8> {
        match self {
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha512(hasher) => hasher.finalize().to_vec(),
        }
    }
}

/// Refuses a request whose digest cannot be checked, or whose body is empty and should not be.
pub(in crate::http) fn check(request: &Request) -> Option<Response> {
    let expected = match expected(request.headers()) {
        Ok(expected) => expected,
        Err(error) => {
            let mut response = Refusal::from(Problem::invalid(vec![error])).into_response();
            let wanted = HeaderValue::from_static("sha-256=10, sha-512=5");
            response.headers_mut().insert(WANT_CONTENT_DIGEST, wanted);
            return Some(response);
        }
    };
    if !request.body().is_end_stream() {
        return None;
    }
    // No handler reads a body that it knows to be empty.
    let mismatch = compare(expected).err()?;
    Some(Refusal::from(Error::from(mismatch)).into_response())
}

/// Wraps the body of a request so that reading it ends with an error unless it has its digests. [`check`] has refused
/// what cannot be checked.
pub(in crate::http) fn checked(request: Request) -> Request {
    let expected = expected(request.headers()).unwrap_or_default();
    request.map(|body| Body::new(Checked { body, expected }))
}

/// The digests in the head of a request.
fn expected(headers: &HeaderMap) -> Result<Vec<Expected>, FieldError> {
    let mut all = Vec::new();
    for header in [CONTENT_DIGEST, REPR_DIGEST] {
        if !headers.contains_key(&header) {
            continue;
        }
        let before = all.len();
        for line in headers.get_all(&header) {
            for member in line.to_str().unwrap_or("?").split(',') {
                all.extend(digest(&header, member)?);
            }
        }
        if all.len() == before {
            return Err(field(&header, "has no digest in sha-256 or sha-512"));
        }
        if all.len() > DIGESTS_MAX {
            return Err(field(&header, "has too many digests"));
        }
    }
    Ok(all)
}

/// A member of the dictionary; `None` when its algorithm is unknown here.
fn digest(header: &HeaderName, member: &str) -> Result<Option<Expected>, FieldError> {
    let malformed = || {
        let example = "must be like sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
        field(header, example)
    };
    let (algorithm, value) = member.trim().split_once('=').ok_or_else(malformed)?;
    let encoded = value.strip_prefix(':').and_then(|m| m.strip_suffix(':'));
    let hash = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
    let hash = hash.ok_or_else(malformed)?;
    let Some(hasher) = Hasher::of(algorithm) else {
        return Ok(None);
    };
    if hash.len() != hasher.bytes() {
        return Err(malformed());
    }
    Ok(Some(Expected {
        header: header.clone(),
        hash,
        hasher,
    }))
}

fn field(header: &HeaderName, detail: &str) -> FieldError {
    FieldError::of_header(header, detail)
}

/// A body that is compared with its digests before its last bytes are passed on.
struct Checked {
    body: Body,
    /// Empty after the comparison.
    expected: Vec<Expected>,
}

fn compare(all: Vec<Expected>) -> Result<(), Mismatch> {
    for expected in all {
        if expected.hasher.finalize() != expected.hash {
            return Err(Mismatch(expected.header));
        }
    }
    Ok(())
}

impl HttpBody for Checked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            for expected in &mut self.expected {
                expected.hasher.update(data);
            }
        }
        if (frame.is_none() || self.body.is_end_stream())
            && let Err(mismatch) = compare(std::mem::take(&mut self.expected))
        {
            return Poll::Ready(Some(Err(axum::Error::new(mismatch))));
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body has another digest than this header says.
#[derive(Debug)]
struct Mismatch(HeaderName);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body has another digest than {}", self.0)
    }
}

impl StdError for Mismatch {}

impl From<Mismatch> for Error {
    fn from(Mismatch(header): Mismatch) -> Self {
        let detail = "is not the digest of the body that came";
        Self::Invalid(vec![field(&header, detail)])
    }
}

/// The error that made reading a body fail: a wrong digest, or a broken connection or coding.
pub(in crate::http) fn read_error(error: &axum::Error) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Mismatch(header)) = error.downcast_ref() {
            return Mismatch(header.clone()).into();
        }
        cause = error.source();
    }
    Error::BodyBroken
}

/// The value of the header for a body.
pub(in crate::http) fn of(body: &[u8]) -> Option<HeaderValue> {
    let base64 = STANDARD.encode(Sha256::digest(body));
    HeaderValue::from_str(&format!("sha-256=:{base64}:")).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_ENCODING;
    use futures_util::stream;
    use http_body_util::BodyExt;

    use super::*;
    use crate::http::request::decoding;

    // RFC 9530, appendix B.1.
    const BODY: &str = r#"{"hello": "world"}"#;
    const SHA_256: &str = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    const UNKNOWN: &str = "unixsum=:AAA=:";

    fn sha_512() -> String {
        format!("sha-512=:{}:", STANDARD.encode(Sha512::digest(BODY)))
    }

    fn request(lines: &[(HeaderName, &str)], body: Body) -> Request {
        let mut request = Request::builder();
        for (name, value) in lines {
            request = request.header(name, *value);
        }
        request.body(body).unwrap()
    }

    /// Reads the body to its end.
    async fn read(request: Request) -> Result<Bytes, Error> {
        let read = request.into_body().collect().await;
        read.map(|read| read.to_bytes())
            .map_err(|error| read_error(&error))
    }

    #[tokio::test]
    async fn every_digest_of_a_body_is_checked_whether_it_comes_whole_or_in_pieces() {
        let sha_512 = sha_512();
        let both = format!("{UNKNOWN}, {sha_512},{SHA_256}");
        for lines in [
            [(CONTENT_DIGEST, SHA_256), (REPR_DIGEST, &*sha_512)],
            [(CONTENT_DIGEST, SHA_256), (CONTENT_DIGEST, &*both)],
        ] {
            for (text, is_right) in [(BODY, true), (r#"{"hello": "word"}"#, false), ("", false)] {
                let pieces = text.as_bytes().chunks(5);
                let pieces: Vec<_> = pieces.map(|piece| Ok::<_, Error>(piece.to_vec())).collect();
                for body in [Body::from(text), Body::from_stream(stream::iter(pieces))] {
                    let request = request(&lines, body);
                    let is_ok = check(&request).is_none() && read(checked(request)).await.is_ok();
                    assert_eq!(is_ok, is_right, "{text}");
                }
            }
        }
    }

    #[tokio::test]
    async fn the_digest_of_a_coded_body_is_that_of_the_coded_bytes() {
        let coded = zstd::encode_all(BODY.as_bytes(), 1).unwrap();
        for (digest, is_right) in [(of(&coded), true), (of(BODY.as_bytes()), false)] {
            let digest = digest.unwrap();
            let lines = [
                (CONTENT_DIGEST, digest.to_str().unwrap()),
                (CONTENT_ENCODING, "zstd"),
            ];
            let request = checked(request(&lines, Body::from(coded.clone())));
            let read = read(decoding::decoded(request)).await;
            assert_eq!(read.is_ok(), is_right);
            assert!(
                is_right || matches!(read, Err(Error::Invalid(_))),
                "{read:?}"
            );
        }
    }

    #[test]
    fn a_digest_that_cannot_be_checked_is_refused() {
        for digest in [
            "",
            UNKNOWN,
            "sha-256",
            "sha-256=AA==",
            "sha-256=:AA==:",
            "sha-256=:%:",
            &format!("{SHA_256}, sha-512=:%:"),
            &[SHA_256; DIGESTS_MAX + 1].join(","),
        ] {
            for header in [CONTENT_DIGEST, REPR_DIGEST] {
                let request = request(&[(header, digest)], Body::from(BODY));
                let response = check(&request).unwrap();
                assert_eq!(response.status(), 400, "{digest}");
                assert!(response.headers().contains_key(WANT_CONTENT_DIGEST));
            }
        }
        assert_eq!(of(BODY.as_bytes()).unwrap(), SHA_256);
    }
}
