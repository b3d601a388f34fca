//! The trace context of the producer (W3C Trace Context). It is stored with its messages and returned unchanged. A
//! malformed one is ignored, so that a broken tracer does not stop messages.

use std::borrow::Cow;

use api::limits::TRACESTATE_CHARS_MAX;
use axum::http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00. Later versions may append fields after a `-`.
const PARENT_CHARS: usize = 55;

/// The trace context of a message.
#[derive(Debug, Clone)]
pub(in crate::http) struct Trace<'a> {
    /// `traceparent`.
    pub(in crate::http) parent: &'a str,
    /// `tracestate`.
    pub(in crate::http) state: Option<Cow<'a, str>>,
}

/// Reads the trace context of a request.
pub(in crate::http) fn of(headers: &HeaderMap) -> Option<Trace<'_>> {
    let parent = headers.get(&TRACEPARENT)?.to_str().ok()?;
    is_parent(parent).then(|| Trace {
        parent,
        state: state(headers),
    })
}

/// Several header lines are one list. A list that is too long is dropped, because a part of it may have another
/// meaning.
fn state(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut lines = headers.get_all(&TRACESTATE).iter();
    let mut state = Cow::Borrowed(lines.next()?.to_str().ok()?);
    for line in lines {
        state = Cow::Owned(format!("{state},{}", line.to_str().ok()?));
    }
    (1..=TRACESTATE_CHARS_MAX)
        .contains(&state.len())
        .then_some(state)
}

fn is_parent(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &str| hex(part) && part.bytes().any(|b| b != b'0');
    let Some((known, more)) = text.split_at_checked(PARENT_CHARS) else {
        return false;
    };
    let mut parts = known.split('-');
    let parts: [Option<&str>; 5] = std::array::from_fn(|_| parts.next());
    let [Some(version), Some(trace), Some(span), Some(flags), None] = parts else {
        return false;
    };
    let lengths = [version, trace, span, flags].map(str::len) == [2, 32, 16, 2];
    let is_version = hex(version) && version != "ff";
    let ends = more.is_empty() || (version != "00" && more.starts_with('-'));
    lengths && is_version && id(trace) && id(span) && hex(flags) && ends
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_context_of_any_version_is_kept_and_a_malformed_one_dropped() {
        for good in [
            GOOD,
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later",
        ] {
            assert!(is_parent(good), "{good}");
        }
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "000-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert!(!is_parent(bad), "{bad}");
        }
    }

    #[test]
    fn a_trace_state_of_several_lines_is_one_and_goes_only_with_a_parent() {
        let mut headers = HeaderMap::new();
        headers.append("tracestate", HeaderValue::from_static("a=1"));
        assert!(of(&headers).is_none());
        headers.insert("traceparent", HeaderValue::from_static(GOOD));
        headers.append("tracestate", HeaderValue::from_static("b=2"));
        assert_eq!(of(&headers).unwrap().state.as_deref(), Some("a=1,b=2"));
        let long = "x".repeat(TRACESTATE_CHARS_MAX + 1);
        headers.insert("tracestate", long.parse().unwrap());
        let trace = of(&headers).unwrap();
        assert_eq!((trace.parent, trace.state), (GOOD, None));
    }
}
