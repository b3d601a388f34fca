//! What every 429 and 503 says beside its problem: when to come back (`Retry-After`), which bound was met (`RateLimit-Policy`)
//! and that nothing of it is left (`RateLimit`; IETF draft, structured fields). The one place that writes these headers.

use api::limits::{GUESSES_MAX, QUEUED_PUBLISH_BYTES_MAX, WAITING_RECEIVERS_MAX};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Seconds until trying again makes sense: a queue drains in a few turns, and a part that does not answer is asked again.
const AGAIN_SECONDS: u32 = 1;

/// A bound that a request can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Bytes of publishes that wait for the next turn.
    Queue,
    /// Receivers of one subscription that wait on one node.
    Receivers,
    /// Invalid keys from one address.
    Guesses,
    /// While a part of the service does not answer there is room for no request.
    Unavailable,
}

impl Policy {
    /// Its name, as `violated-policies` of a problem has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Receivers => "receivers",
            Self::Guesses => "guesses",
            Self::Unavailable => "unavailable",
        }
    }

    /// The policy of a name, as a problem says it.
    pub(super) fn named(name: Option<&str>) -> Self {
        [Self::Queue, Self::Receivers, Self::Guesses]
            .into_iter()
            .find(|policy| name == Some(policy.name()))
            .unwrap_or(Self::Unavailable)
    }

    fn quota(self) -> (&'static str, usize) {
        match self {
            Self::Queue => ("content-bytes", QUEUED_PUBLISH_BYTES_MAX),
            Self::Receivers => ("concurrent-requests", WAITING_RECEIVERS_MAX),
            Self::Guesses => ("requests", GUESSES_MAX as usize),
            Self::Unavailable => ("requests", 0),
        }
    }
}

/// Says in the head of an answer that `policy` stood against the request.
pub(super) fn tell(headers: &mut HeaderMap, policy: Policy) {
    let (name, (unit, quota)) = (policy.name(), policy.quota());
    let mut put = |header: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header, value);
        }
    };
    put(RETRY_AFTER, AGAIN_SECONDS.to_string());
    put(
        RATE_LIMIT_POLICY,
        format!("\"{name}\";qu=\"{unit}\";q={quota}"),
    );
    put(RATE_LIMIT, format!("\"{name}\";r=0;t={AGAIN_SECONDS}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_told_as_structured_fields() {
        let mut headers = HeaderMap::new();
        tell(&mut headers, Policy::named(Some("queue")));
        assert_eq!(headers[RETRY_AFTER], "1");
        assert_eq!(
            headers[RATE_LIMIT_POLICY],
            r#""queue";qu="content-bytes";q=67108864"#
        );
        assert_eq!(headers[RATE_LIMIT], r#""queue";r=0;t=1"#);
        tell(&mut headers, Policy::named(None));
        assert_eq!(
            headers[RATE_LIMIT_POLICY],
            r#""unavailable";qu="requests";q=0"#
        );
    }
}
