//! Conditional requests (RFC 9110, section 13) for what has an ETag. Dates are ignored, because nothing has a
//! `Last-Modified`.

use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use api::ErrorCode;

use crate::http::answer::problem::Refusal;

/// The response to a request for something with this strong ETag whose condition does not hold; `None`: it holds, or
/// there is none. Conditions come before ranges.
pub(in crate::http) fn unmet(headers: &HeaderMap, etag: &HeaderValue) -> Option<Response> {
    if headers.contains_key(IF_MATCH) && !lists(headers, &IF_MATCH, etag, false) {
        let detail = "If-Match lists another ETag than the present one";
        let refusal = Refusal::new(ErrorCode::PreconditionFailed, detail);
        return Some(refusal.into_response());
    }
    if headers.contains_key(IF_NONE_MATCH) && lists(headers, &IF_NONE_MATCH, etag, true) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        response.headers_mut().insert(ETAG, etag.clone());
        return Some(response);
    }
    None
}

/// Whether a list of ETags has this one or is `*`. A weak one counts only if `weak` does.
fn lists(headers: &HeaderMap, name: &HeaderName, etag: &HeaderValue, weak: bool) -> bool {
    headers.get_all(name).iter().any(|line| {
        let tags = line.as_bytes().split(|byte| *byte == b',');
        tags.map(<[u8]>::trim_ascii).any(|tag| {
            let opaque = tag.strip_prefix(b"W/").filter(|_| weak);
            tag == b"*" || opaque.unwrap_or(tag) == etag.as_bytes()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_compared_with_the_etag() {
        let etag = HeaderValue::from_static("\"id\"");
        let status = |lines: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_static(value));
            }
            unmet(&headers, &etag).map(|response| response.status().as_u16())
        };
        assert_eq!(status(&[]), None);
        for (value, matches, none_matches) in [
            ("\"id\"", None, Some(304)),
            ("*", None, Some(304)),
            ("\"a\", \"id\"", None, Some(304)),
            ("W/\"id\"", Some(412), Some(304)),
            ("\"a\",W/\"b\"", Some(412), None),
            ("id", Some(412), None),
            ("", Some(412), None),
        ] {
            assert_eq!(status(&[(IF_MATCH, value)]), matches, "{value}");
            assert_eq!(status(&[(IF_NONE_MATCH, value)]), none_matches, "{value}");
        }
        let lines = [(IF_NONE_MATCH, "\"a\""), (IF_NONE_MATCH, "\"id\"")];
        assert_eq!(status(&lines), Some(304));
        let both = [(IF_MATCH, "\"a\""), (IF_NONE_MATCH, "\"id\"")];
        assert_eq!(status(&both), Some(412), "If-Match comes first");
    }
}
