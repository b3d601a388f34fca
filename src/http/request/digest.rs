//! `Content-Digest` (RFC 9530). The digest of a publish is checked before the message is stored. A response gets a
//! digest if its body is in memory. Only SHA-256 is supported; other algorithms are ignored, as the RFC specifies.

use api::FieldError;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::engine::Error;
use crate::http::answer::problem::Refusal;

pub(in crate::http) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// The SHA-256 that a body must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Expected([u8; 32]);

/// The digest in the head of a request.
pub(in crate::http) fn expected(headers: &HeaderMap) -> Result<Option<Expected>, Refusal> {
    let lines = headers.get_all(CONTENT_DIGEST).iter();
    let mut members = lines.flat_map(|line| line.to_str().unwrap_or("").split(','));
    let member = members.find_map(|member| member.trim().strip_prefix("sha-256="));
    let Some(member) = member else {
        return Ok(None);
    };
    let base64 = member.strip_prefix(':').and_then(|m| m.strip_suffix(':'));
    let bytes = base64.and_then(|base64| STANDARD.decode(base64).ok());
    match bytes.and_then(|bytes| bytes.try_into().ok()) {
        Some(hash) => Ok(Some(Expected(hash))),
        None => Err(Error::Invalid(vec![field(
            "must be like sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
        )])
        .into()),
    }
}

fn field(detail: &str) -> FieldError {
    FieldError::new(format!("header:{CONTENT_DIGEST}"), detail)
}

impl Expected {
    /// Refuses a body with another digest.
    pub(in crate::http) fn check(self, body: &[u8]) -> Result<(), Error> {
        self.compare(Sha256::digest(body).into())
    }

    fn compare(self, hash: [u8; 32]) -> Result<(), Error> {
        if self.0 == hash {
            return Ok(());
        }
        let detail = "is not the SHA-256 of the body that came";
        Err(Error::Invalid(vec![field(detail)]))
    }

    /// The same stream, but it ends with an error if the digest differs. The upload is given up then.
    pub(in crate::http) fn checked(
        self,
        body: BoxStream<'static, Result<Bytes, Error>>,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        let state = (body, Sha256::new());
        stream::try_unfold(state, move |(mut body, mut hash)| async move {
            match body.try_next().await? {
                Some(bytes) => {
                    hash.update(&bytes);
                    Ok(Some((bytes, (body, hash))))
                }
                None => self.compare(hash.finalize().into()).map(|()| None),
            }
        })
        .boxed()
    }
}

/// The value of the header for a body.
pub(in crate::http) fn of(body: &[u8]) -> Option<HeaderValue> {
    let base64 = STANDARD.encode(Sha256::digest(body));
    HeaderValue::from_str(&format!("sha-256=:{base64}:")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(value: &str) -> Result<Option<Expected>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_DIGEST, value.parse().unwrap());
        expected(&headers)
    }

    #[tokio::test]
    async fn a_body_is_compared_with_its_digest_whether_held_or_streamed() {
        // RFC 9530, appendix B.1.
        let body = br#"{"hello": "world"}"#;
        let digest = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
        let hello = given(&format!("sha-512=:AA==:, {digest}"))
            .unwrap()
            .unwrap();
        assert!(hello.check(body).is_ok() && hello.check(b"{}").is_err());
        assert_eq!(of(body).unwrap(), digest);
        for (tail, is_ok) in [("world\"}", true), ("word\"}", false)] {
            let pieces = ["{\"hello\": \"", tail].map(|piece| Ok(Bytes::from(piece)));
            let checked = hello.checked(stream::iter(pieces).boxed());
            let read: Result<Vec<Bytes>, Error> = checked.try_collect().await;
            assert_eq!(read.is_ok(), is_ok);
        }
    }

    #[test]
    fn other_algorithms_are_ignored_and_a_malformed_digest_is_refused() {
        assert!(given("sha-512=:AA==:").unwrap().is_none());
        for bad in ["sha-256=AA==", "sha-256=:AA==:", "sha-256=:%:"] {
            assert!(given(bad).is_err(), "{bad}");
        }
    }
}
