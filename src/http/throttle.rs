//! What every 429 and 503 says beside its problem: when to come back (`Retry-After`), which bound was met (`RateLimit-Policy`)
//! and that nothing of it is left (`RateLimit`; IETF draft, structured fields); and what every other answer says to a tenant
//! that has a quota. The one place that writes these headers.

use std::fmt::Write as _;

use api::limits::{GUESSES_MAX, QUEUED_PUBLISH_BYTES_MAX, WAITING_RECEIVERS_MAX};
use api::quota::{Quota, RateQuota};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use crate::engine::quota::{Admission, Left, Policy, RATES, Violation, Words};

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Seconds until trying again makes sense: a queue drains in a few turns, and a part that does not answer is asked again.
const AGAIN_SECONDS: u32 = 1;

/// A bound that a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// Bytes of publishes that wait for the next turn.
    Queue,
    /// Receivers of one subscription that wait on one node.
    Receivers,
    /// Invalid keys from one address.
    Guesses,
    /// While a part of the service does not answer there is room for no request.
    Unavailable,
    /// A quota of the tenant.
    Quota(Violation),
}

impl Bound {
    /// Its name, as `violated-policies` of a problem has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Receivers => "receivers",
            Self::Guesses => "guesses",
            Self::Unavailable => "unavailable",
            Self::Quota(violation) => violation.policy.name(),
        }
    }

    fn policy(self) -> String {
        let mut text = String::new();
        let (unit, quota) = match self {
            Self::Queue => ("content-bytes", QUEUED_PUBLISH_BYTES_MAX),
            Self::Receivers => ("concurrent-requests", WAITING_RECEIVERS_MAX),
            Self::Guesses => ("requests", GUESSES_MAX as usize),
            Self::Unavailable => ("requests", 0),
            Self::Quota(violation) => {
                put_policy(&mut text, violation.policy, violation.quota);
                return text;
            }
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "\"{}\";qu=\"{unit}\";q={quota}", self.name());
        text
    }

    fn again_seconds(self) -> u32 {
        match self {
            Self::Queue | Self::Receivers | Self::Guesses | Self::Unavailable => AGAIN_SECONDS,
            Self::Quota(violation) => violation.again_seconds,
        }
    }
}

/// Adds a policy to a structured list. Requests are the unit when none is named.
fn put_policy(text: &mut String, policy: Policy, quota: u64) {
    if !text.is_empty() {
        text.push_str(", ");
    }
    let _ = write!(text, "\"{}\"", policy.name());
    if policy != Policy::Requests {
        let _ = write!(text, ";qu=\"{}\"", policy.unit());
    }
    let _ = write!(text, ";q={quota}");
    if policy.is_rate() {
        text.push_str(";w=1");
    }
}

/// Says in the head of an answer that `bound` stood against the request.
pub(super) fn tell(headers: &mut HeaderMap, bound: Bound) {
    let (name, again) = (bound.name(), bound.again_seconds());
    insert(headers, RETRY_AFTER, again.to_string());
    insert(headers, RATE_LIMIT_POLICY, bound.policy());
    insert(headers, RATE_LIMIT, format!("\"{name}\";r=0;t={again}"));
}

/// Says in the head of an answer what a limited tenant may do, and what is left of it here and now.
pub(super) fn tell_quota(headers: &mut HeaderMap, admission: &Admission) {
    if headers.contains_key(RATE_LIMIT_POLICY) {
        // What stood against the request says more.
        return;
    }
    let words = Words { policies, left };
    let told = admission.limited().told(words, admission.at());
    for (header, text) in [RATE_LIMIT_POLICY, RATE_LIMIT].into_iter().zip(told) {
        if !text.is_empty() {
            insert(headers, header, text);
        }
    }
}

/// What is left of the rates of a tenant.
fn left(left: &Left) -> String {
    let mut text = String::new();
    for (policy, left) in RATES.into_iter().zip(left) {
        if let Some(left) = left {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}\"{}\";r={left};t=1", policy.name());
        }
    }
    text
}

/// All policies of a tenant whose answers say something of them.
fn policies(quota: &Quota) -> String {
    let mut text = String::new();
    for (policy, rate) in RATES.into_iter().zip(quota.rates()) {
        let RateQuota { ceiling, .. } = rate.unwrap_or_default();
        if let Some(ceiling) = ceiling {
            put_policy(&mut text, policy, ceiling);
        }
    }
    if let Some(cap) = quota.concurrent_requests {
        put_policy(&mut text, Policy::ConcurrentRequests, cap);
    }
    text
}

fn insert(headers: &mut HeaderMap, header: HeaderName, text: impl Into<Bytes>) {
    if let Ok(value) = HeaderValue::from_maybe_shared(text.into()) {
        headers.insert(header, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bound: Bound) -> [String; 3] {
        let mut headers = HeaderMap::new();
        tell(&mut headers, bound);
        [RETRY_AFTER, RATE_LIMIT_POLICY, RATE_LIMIT]
            .map(|name| headers[name].to_str().unwrap().to_owned())
    }

    #[test]
    fn a_bound_is_told_as_structured_fields() {
        assert_eq!(
            told(Bound::Queue),
            [
                "1",
                r#""queue";qu="content-bytes";q=67108864"#,
                r#""queue";r=0;t=1"#
            ]
        );
        let [_, policy, _] = told(Bound::Unavailable);
        assert_eq!(policy, r#""unavailable";qu="requests";q=0"#);
    }

    #[test]
    fn a_quota_is_told_with_its_unit_and_window() {
        let violation = |policy| {
            Bound::Quota(Violation {
                policy,
                quota: 500,
                used: None,
                again_seconds: 7,
            })
        };
        assert_eq!(
            told(violation(Policy::Requests)),
            ["7", r#""requests";q=500;w=1"#, r#""requests";r=0;t=7"#]
        );
        for (policy, says) in [
            (Policy::Messages, r#""messages";qu="messages";q=500;w=1"#),
            (Policy::Bytes, r#""bytes";qu="content-bytes";q=500;w=1"#),
            (
                Policy::ConcurrentRequests,
                r#""concurrent-requests";qu="concurrent-requests";q=500"#,
            ),
            (Policy::Topics, r#""topics";qu="topics";q=500"#),
        ] {
            assert_eq!(told(violation(policy))[1], says);
        }
    }

    #[test]
    fn what_is_left_is_one_list_of_what_is_limited() {
        assert_eq!(
            left(&[Some(3), None, Some(0)]),
            r#""requests";r=3;t=1, "bytes";r=0;t=1"#
        );
        assert_eq!(left(&[None; 3]), "");
    }

    #[test]
    fn policies_of_a_tenant_are_one_list() {
        let rate = |ceiling| {
            Some(RateQuota {
                guaranteed: Some(1),
                ceiling,
            })
        };
        let quota = Quota {
            requests_per_second: rate(Some(9)),
            messages_per_second: rate(None),
            bytes_per_second: rate(Some(5)),
            concurrent_requests: Some(3),
            ..Quota::default()
        };
        assert_eq!(
            policies(&quota),
            r#""requests";q=9;w=1, "bytes";qu="content-bytes";q=5;w=1, "concurrent-requests";qu="concurrent-requests";q=3"#
        );
        assert_eq!(policies(&Quota::default()), "");
    }
}
