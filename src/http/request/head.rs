//! The headers that `layer` reads of every request, and the responses that depend on the head alone: to pages of other
//! sites, heads over a limit, CORS preflights, and bodies with an unsupported coding.

use api::ErrorCode;
use api::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::{cors, decoding, local};
use crate::http::answer::problem::Refusal;

pub(in crate::http) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer request id of a client is replaced.
const REQUEST_ID_CHARS_MAX: usize = 128;

/// The headers that `layer` needs, collected in one pass: a look-up by name hashes the name each time.
#[derive(Default)]
pub(in crate::http) struct Head<'a> {
    request_id: Option<&'a HeaderValue>,
    host: Option<&'a HeaderValue>,
    pub(in crate::http) accept_encoding: Option<&'a HeaderValue>,
    /// Whether a web page sent the request.
    pub(in crate::http) has_origin: bool,
    /// Whether the body has a content coding.
    pub(in crate::http) is_coded: bool,
    /// Bytes of all names and values.
    bytes: usize,
}

impl<'a> Head<'a> {
    pub(in crate::http) fn of(headers: &'a HeaderMap) -> Self {
        let mut head = Self::default();
        for (name, value) in headers {
            head.bytes += name.as_str().len() + value.len();
            if *name == HOST {
                head.host = head.host.or(Some(value));
            } else if *name == ACCEPT_ENCODING {
                head.accept_encoding = head.accept_encoding.or(Some(value));
            } else if *name == ORIGIN {
                head.has_origin = true;
            } else if *name == CONTENT_ENCODING {
                head.is_coded = true;
            } else if *name == REQUEST_ID {
                head.request_id = head.request_id.or(Some(value));
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
        let foreign = if is_open {
            local::foreign(request, self.host, self.has_origin)
        } else {
            None
        };
        let early = foreign
            .or_else(|| oversized(request.headers().len(), self.bytes))
            .or_else(|| cors::preflight(request));
        if self.is_coded {
            return early.or_else(|| decoding::check(request));
        }
        early
    }
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
