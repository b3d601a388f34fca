//! What `layer` reads from the head of every request, and the requests that get their response from the head alone: those of
//! foreign pages, heads over a limit, preflights of CORS, and bodies in a coding that is not supported.

use api::ErrorCode;
use api::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::{cors, decoding, local};
use crate::http::answer::problem::Refusal;

pub(in crate::http) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client's request id longer than this is replaced.
const REQUEST_ID_CHARS_MAX: usize = 128;

/// The headers of a request that `layer` needs, found in one pass: a look-up by name hashes the name each time.
#[derive(Default)]
pub(in crate::http) struct Head<'a> {
    request_id: Option<&'a HeaderValue>,
    host: Option<&'a HeaderValue>,
    pub(in crate::http) accept_encoding: Option<&'a HeaderValue>,
    /// Whether the page of a site sent it.
    pub(in crate::http) has_origin: bool,
    /// Whether its body has a coding.
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

    /// The request id, when the client sent one that is fit for a log: visible ASCII, and not too long.
    pub(in crate::http) fn request_id(&self) -> Option<&HeaderValue> {
        self.request_id.filter(|id| {
            (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
    }

    /// The response to a request that does not reach its route. `is_open`: requests need no key.
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

/// Refuses a head over the limit. The limits of the server are higher, and their response is no problem document. Only the
/// number of headers in HTTP/1.1 is bounded by the server: another bound there costs each request an allocation.
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
