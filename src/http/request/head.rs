//! The headers that `layer` reads of every request, and the responses that depend on the head alone: to malformed heads
//! and heads over a limit, pages of other sites, CORS preflights, and bodies with an unsupported coding.

use api::ErrorCode;
use api::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use axum::extract::Request;
use axum::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HOST, ORIGIN, TRANSFER_ENCODING,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use axum::response::{IntoResponse, Response};

use super::digest::{self, CONTENT_DIGEST, REPR_DIGEST};
use super::local::{self, Site};
use super::{cors, decoding};
use crate::http::answer::problem::Refusal;

pub(in crate::http) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer request id of a client is replaced.
const REQUEST_ID_CHARS_MAX: usize = 128;

/// The headers that `layer` needs, collected in one pass: a look-up by name hashes the name each time.
#[derive(Default)]
pub(in crate::http) struct Head<'a> {
    request_id: Option<&'a HeaderValue>,
    host: Option<&'a HeaderValue>,
    /// Whether there is more than one `Host`.
    has_hosts: bool,
    pub(in crate::http) accept_encoding: Option<&'a HeaderValue>,
    /// Whether a web page sent the request.
    pub(in crate::http) has_origin: bool,
    /// Whether the body has a content coding.
    pub(in crate::http) is_coded: bool,
    /// Whether the body has a digest.
    pub(in crate::http) has_digest: bool,
    /// Whether the body has a transfer coding apart from chunks.
    is_transfer_coded: bool,
    is_part: bool,
    site: Site<'a>,
    /// Bytes of all names and values.
    bytes: usize,
}

impl<'a> Head<'a> {
    pub(in crate::http) fn of(headers: &'a HeaderMap) -> Self {
        let mut head = Self::default();
        for (name, value) in headers {
            head.bytes += name.as_str().len() + value.len();
            if *name == HOST {
                head.has_hosts = head.host.is_some();
                head.host = head.host.or(Some(value));
            } else if *name == ACCEPT_ENCODING {
                head.accept_encoding = head.accept_encoding.or(Some(value));
            } else if *name == ORIGIN {
                head.has_origin = true;
            } else if *name == CONTENT_ENCODING {
                head.is_coded = true;
            } else if *name == TRANSFER_ENCODING {
                let is_known = value.as_bytes().eq_ignore_ascii_case(b"chunked");
                head.is_transfer_coded |= !is_known;
            } else if *name == CONTENT_RANGE {
                head.is_part = true;
            } else if *name == REQUEST_ID {
                head.request_id = head.request_id.or(Some(value));
            } else if *name == CONTENT_DIGEST || *name == REPR_DIGEST {
                head.has_digest = true;
            } else {
                head.site.read(name, value);
            }
        }
        head
    }

    /// The client's request id, if it is fit for a log: visible ASCII and not too long.
    pub(in crate::http) fn request_id(&self) -> Option<&HeaderValue> {
        self.request_id.filter(|id| {
            (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
    }

    /// The response to a request that must not reach its route; `None`: it may. `is_open`: requests need no key.
    pub(in crate::http) fn early(&self, request: &Request, is_open: bool) -> Option<Response> {
        let foreign = || {
            let site = if self.has_origin {
                self.site.with_origins(request.headers())
            } else {
                self.site
            };
            local::foreign(request, self.host, site)
        };
        let early = self
            .malformed(request)
            .or_else(|| is_open.then(foreign).flatten())
            .or_else(|| oversized(request.headers().len(), self.bytes))
            .or_else(|| cors::preflight(request));
        let early = early.or_else(|| self.is_coded.then(|| decoding::check(request)).flatten());
        early.or_else(|| self.has_digest.then(|| digest::check(request)).flatten())
    }

    /// Refuses what HTTP demands to be refused and hyper lets through.
    fn malformed(&self, request: &Request) -> Option<Response> {
        let detail = if self.has_hosts {
            "there must be one Host"
        } else if self.host.is_none() && request.version() == Version::HTTP_11 {
            "a request of HTTP/1.1 must have a Host"
        } else if !self.host.is_none_or(is_host) {
            "Host must be a name or address, with or without a port"
        } else if self.is_part && request.method() == Method::PUT {
            // Taken for the whole, the part would replace it (RFC 9110, section 14.5).
            "Content-Range is not supported: a PUT sends the whole"
        } else if self.is_transfer_coded {
            let detail =
                "Transfer-Encoding must be chunked; use Content-Encoding for a compressed body";
            return Some(Refusal::new(ErrorCode::NotImplemented, detail).into_response());
        } else {
            return None;
        };
        Some(Refusal::new(ErrorCode::InvalidRequest, detail).into_response())
    }
}

/// Whether the value of `Host` is valid (RFC 9110, section 7.2). It may be empty.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    // The common case, which does not need the parser.
    let name = bytes
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'.' | b'-'));
    let Some(end) = name else {
        return true;
    };
    if end > 0 && bytes[end] == b':' && bytes[end + 1..].iter().all(u8::is_ascii_digit) {
        return true;
    }
    let name_end = bytes.iter().rposition(|byte| *byte == b']').unwrap_or(0);
    let mut port = bytes[name_end..].splitn(2, |byte| *byte == b':').skip(1);
    port.all(|port| port.iter().all(u8::is_ascii_digit))
        && !bytes.contains(&b'@')
        && Authority::try_from(bytes).is_ok()
}

/// Refuses a head over the limit. The limits of the HTTP server are higher, but its refusal is no problem document. An
/// exception is the number of headers in HTTP/1.1: raising that limit of the server would cost an allocation per
/// request.
fn oversized(headers: usize, bytes: usize) -> Option<Response> {
    let detail = if headers > HEADERS_MAX {
        format!("the request has more than {HEADERS_MAX} headers")
    } else if bytes > HEADER_BYTES_MAX {
        format!("the headers have more than {HEADER_BYTES_MAX} bytes together")
    } else {
        return None;
    };
    Some(Refusal::new(ErrorCode::HeadersTooLarge, detail).into_response())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn status(version: Version, lines: &[(HeaderName, &str)]) -> Option<u16> {
        let mut request = Request::put("/x").version(version);
        for (name, value) in lines {
            request = request.header(name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let early = Head::of(request.headers()).early(&request, false);
        early.map(|response| response.status().as_u16())
    }

    #[test]
    fn a_request_has_one_host_that_can_be_one() {
        for host in [
            "",
            "a",
            "a.example:8080",
            "127.0.0.1:1",
            "[::1]:80",
            "a:",
            "_a~b:1",
        ] {
            let lines = [(HOST, host)];
            assert_eq!(status(Version::HTTP_11, &lines), None, "{host}");
        }
        for host in ["a b", "a@b", "a:b", "a/b", "[::1", "a:1:2", "a,b\\"] {
            let lines = [(HOST, host)];
            assert_eq!(status(Version::HTTP_11, &lines), Some(400), "{host}");
        }
        assert_eq!(status(Version::HTTP_11, &[]), Some(400));
        assert_eq!(status(Version::HTTP_10, &[]), None);
        assert_eq!(status(Version::HTTP_2, &[]), None);
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            let two = [(HOST, "a"), (HOST, "a")];
            assert_eq!(status(version, &two), Some(400));
        }
    }

    #[test]
    fn only_chunks_are_decoded_so_other_transfer_codings_are_refused() {
        let coded = |lines: &[&str]| {
            let mut all = vec![(HOST, "a")];
            all.extend(lines.iter().map(|line| (TRANSFER_ENCODING, *line)));
            status(Version::HTTP_11, &all)
        };
        assert_eq!(coded(&["chunked"]), None);
        assert_eq!(coded(&["Chunked"]), None);
        for lines in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["identity, chunked"],
            &["chunked, chunked"],
            &["chunked;a=b"],
        ] {
            assert_eq!(coded(lines), Some(501), "{lines:?}");
        }
    }

    #[test]
    fn a_part_does_not_replace_the_whole() {
        let lines = [(HOST, "a"), (CONTENT_RANGE, "bytes 0-1/9")];
        assert_eq!(status(Version::HTTP_11, &lines), Some(400));
    }
}
