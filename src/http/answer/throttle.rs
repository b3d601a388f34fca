//! The rate limit headers (IETF draft, structured fields). Every 429 and 503 has the time to wait (`Retry-After`), the
//! limit that refused the request (`RateLimit-Policy`) and that nothing of it is left (`RateLimit`). Every other
//! response to a tenant with a quota has its policies and what is left. `problem` and `admission` call this; no other
//! file writes these headers.

use std::fmt::Write as _;

use api::quota::{Quota, RateQuota};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

use crate::engine::limit::{Limit, Policy, Terms};
use crate::engine::quota::{Left, Standing};

pub(in crate::http) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(in crate::http) const RATE_LIMIT_POLICY: HeaderName =
    HeaderName::from_static("ratelimit-policy");

/// The policy while a part of the service does not respond.
const UNAVAILABLE: Terms = Terms {
    name: "unavailable",
    unit: Some("requests"),
    quota: 0,
    is_rate: false,
};
/// Seconds until the client should try again after that.
const UNAVAILABLE_AGAIN_SECONDS: u32 = 1;

/// Adds an item to the list of `RateLimit-Policy`.
fn put_terms(text: &mut String, terms: Terms) {
    if !text.is_empty() {
        text.push_str(", ");
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "\"{}\"", terms.name);
    if let Some(unit) = terms.unit {
        let _ = write!(text, ";qu=\"{unit}\"");
    }
    let _ = write!(text, ";q={}", terms.quota);
    if terms.is_rate {
        text.push_str(";w=1");
    }
}

/// Writes the headers of a 429 or 503: for the limit that refused the request, or, with `None`, for a part of the
/// service that does not respond.
pub(in crate::http) fn put_limit(headers: &mut HeaderMap, limit: Option<&Limit>) {
    let (terms, again) = limit.map_or((UNAVAILABLE, UNAVAILABLE_AGAIN_SECONDS), |limit| {
        (limit.terms(), limit.again_seconds())
    });
    let mut policy = String::new();
    put_terms(&mut policy, terms);
    let left = format!("\"{}\";r=0;t={again}", terms.name);
    headers.insert(RETRY_AFTER, HeaderValue::from(again));
    for (header, text) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
        if let Some(value) = value(text) {
            headers.insert(header, value);
        }
    }
}

/// The value of `RateLimit` for the rates of a tenant.
fn left(left: &Left) -> String {
    let mut text = String::new();
    for (policy, left) in Policy::RATES.into_iter().zip(left) {
        if let Some(left) = left {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}\"{}\";r={left};t=1", policy.name());
        }
    }
    text
}

/// The value of `RateLimit-Policy` for a tenant.
fn policies(quota: &Quota) -> String {
    let mut text = String::new();
    for (policy, rate) in Policy::RATES.into_iter().zip(quota.rates()) {
        let RateQuota { ceiling, .. } = rate.unwrap_or_default();
        if let Some(ceiling) = ceiling {
            put_terms(&mut text, policy.terms(ceiling));
        }
    }
    if let Some(cap) = quota.concurrent_requests {
        put_terms(&mut text, Policy::ConcurrentRequests.terms(cap));
    }
    text
}

/// Converts a text to a header value; `None` for an empty text, whose header is omitted.
fn value(text: String) -> Option<HeaderValue> {
    let text = Some(text).filter(|text| !text.is_empty());
    text.and_then(|text| HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok())
}

/// Number of cached header texts.
const CACHED: usize = 1_024;

/// The header texts of tenants with a quota. A text is formatted only if it differs from the tenant's last one, because
/// formatting both for every response cost a third of the throughput. Tenants whose ids are equal modulo [`CACHED`]
/// share an entry. Sharing costs formatting, but never gives a wrong text.
pub(in crate::http) struct QuotaTexts(Box<[Mutex<Option<Box<CachedTexts>>>]>);

struct CachedTexts {
    tenant: i64,
    version: i64,
    policies: Option<HeaderValue>,
    left: (Left, Option<HeaderValue>),
}

impl CachedTexts {
    fn of(standing: &Standing) -> Box<Self> {
        Box::new(Self {
            tenant: standing.tenant.get(),
            version: standing.version,
            policies: value(policies(&standing.quota)),
            left: (standing.left, value(left(&standing.left))),
        })
    }

    fn is_of(&self, standing: &Standing) -> bool {
        (self.tenant, self.version) == (standing.tenant.get(), standing.version)
    }
}

impl Default for QuotaTexts {
    fn default() -> Self {
        Self(
            std::iter::repeat_with(Mutex::default)
                .take(CACHED)
                .collect(),
        )
    }
}

impl QuotaTexts {
    /// Writes the policies of a tenant and what is left, unless the headers already name a limit that refused the
    /// request.
    pub(in crate::http) fn put(&self, headers: &mut HeaderMap, standing: &Standing) {
        if headers.contains_key(RATE_LIMIT_POLICY) {
            return;
        }
        let texts = self.texts(standing);
        for (header, text) in [RATE_LIMIT_POLICY, RATE_LIMIT].into_iter().zip(texts) {
            if let Some(text) = text {
                headers.insert(header, text);
            }
        }
    }

    fn texts(&self, standing: &Standing) -> [Option<HeaderValue>; 2] {
        let entry = usize::try_from(standing.tenant.get()).unwrap_or(0) % CACHED;
        let mut cached = self.0[entry].lock();
        if cached
            .as_ref()
            .is_some_and(|cached| !cached.is_of(standing))
        {
            *cached = None;
        }
        let written = cached.get_or_insert_with(|| CachedTexts::of(standing));
        if written.left.0 != standing.left {
            written.left = (standing.left, value(left(&standing.left)));
        }
        [written.policies.clone(), written.left.1.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limit::Violation;
    use crate::store::TenantId;

    fn written(limit: Option<&Limit>) -> [String; 3] {
        let mut headers = HeaderMap::new();
        put_limit(&mut headers, limit);
        [RETRY_AFTER, RATE_LIMIT_POLICY, RATE_LIMIT]
            .map(|name| headers[name].to_str().unwrap().to_owned())
    }

    #[test]
    fn a_limit_is_written_as_structured_fields() {
        assert_eq!(
            written(Some(&Limit::QueuedPublishes)),
            [
                "1",
                r#""queue";qu="content-bytes";q=67108864"#,
                r#""queue";r=0;t=1"#
            ]
        );
        let [_, policy, _] = written(None);
        assert_eq!(policy, r#""unavailable";qu="requests";q=0"#);
    }

    #[test]
    fn a_quota_is_written_with_its_unit_and_window() {
        let violation = |policy| {
            Limit::Quota(Violation {
                policy,
                quota: 500,
                used: None,
                again_seconds: 7,
            })
        };
        assert_eq!(
            written(Some(&violation(Policy::Requests))),
            ["7", r#""requests";q=500;w=1"#, r#""requests";r=0;t=7"#]
        );
        for (policy, text) in [
            (Policy::Messages, r#""messages";qu="messages";q=500;w=1"#),
            (Policy::Bytes, r#""bytes";qu="content-bytes";q=500;w=1"#),
            (
                Policy::ConcurrentRequests,
                r#""concurrent-requests";qu="concurrent-requests";q=500"#,
            ),
            (Policy::Topics, r#""topics";qu="topics";q=500"#),
        ] {
            assert_eq!(written(Some(&violation(policy)))[1], text);
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

    #[test]
    fn a_tenant_gets_the_texts_of_its_own_quota_as_it_is_now() {
        let texts = QuotaTexts::default();
        let standing = |tenant, version, ceiling| {
            let ceiling = Some(ceiling);
            let rate = RateQuota {
                guaranteed: None,
                ceiling,
            };
            let quota = Quota {
                requests_per_second: Some(rate),
                ..Quota::default()
            };
            Standing {
                tenant,
                version,
                quota,
                left: [ceiling.map(|ceiling| ceiling - 1), None, None],
            }
        };
        // The same tenant, the same with another quota, and another tenant that shares the entry.
        for (tenant, version, ceiling) in
            [(1, 1, 9), (1, 1, 9), (1, 2, 8), (1_025, 2, 7), (1, 2, 8)]
        {
            let mut headers = HeaderMap::new();
            texts.put(
                &mut headers,
                &standing(TenantId::new(tenant), version, ceiling),
            );
            let policy = format!(r#""requests";q={ceiling};w=1"#);
            assert_eq!(headers[RATE_LIMIT_POLICY], policy.as_str());
            let left = format!(r#""requests";r={};t=1"#, ceiling - 1);
            assert_eq!(headers[RATE_LIMIT], left.as_str());
        }
    }

    #[test]
    fn the_limit_that_stood_against_a_request_is_not_written_over() {
        let mut headers = HeaderMap::new();
        put_limit(&mut headers, Some(&Limit::Guesses));
        let standing = Standing {
            tenant: TenantId::new(1),
            version: 1,
            quota: Quota::default(),
            left: [Some(1), None, None],
        };
        QuotaTexts::default().put(&mut headers, &standing);
        assert_eq!(headers[RATE_LIMIT], r#""guesses";r=0;t=1"#);
    }
}
