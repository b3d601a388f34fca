//! Asks an endpoint for its consent (CloudEvents 1.0, web hooks, section 4): an `OPTIONS` with the name of the
//! installation as origin and the rate that is wanted. It is sent when the endpoint is put, outside of any transaction,
//! and again with each put.

use api::push::PushSettings;
use uuid::Uuid;

use crate::outbound::{self, HeaderMap, HeaderName, HeaderValue, Outbound, Reply};

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
const ALLOWED_RATE: &str = "webhook-allowed-rate";
/// What allows every origin, or every rate.
const ANY: &str = "*";

/// Asks the URL of an endpoint. Returns the requests a minute that it allows; `None`: any number.
///
/// # Errors
/// Why it does not consent.
pub(super) async fn ask(
    outbound: &Outbound,
    installation: Uuid,
    settings: &PushSettings,
) -> Result<Option<i32>, String> {
    let url = settings.url.as_deref().unwrap_or_default();
    let origin = origin(installation);
    let mut headers = HeaderMap::new();
    if let Ok(origin) = HeaderValue::from_str(&origin) {
        headers.insert(REQUEST_ORIGIN, origin);
    }
    if let Some(rate) = wanted_per_minute(settings) {
        headers.insert(REQUEST_RATE, rate.into());
    }
    match outbound.options(url, headers).await {
        Ok(reply) => granted(&reply, &origin),
        Err(outbound::Error::Refused(detail)) => Err(detail),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "an endpoint was not asked for consent");
            Err("did not answer OPTIONS, which asks for its consent, in time".to_owned())
        }
    }
}

/// The name of the installation in the form of a host.
fn origin(installation: Uuid) -> String {
    format!("{installation}.cursus")
}

/// The rate of the settings, if they have one.
fn wanted_per_minute(settings: &PushSettings) -> Option<u32> {
    let limits = settings.limits.as_ref()?;
    let per_second = limits.per_second.map(|rate| rate.saturating_mul(60));
    limits.per_minute.or(per_second)
}

fn granted(reply: &Reply, origin: &str) -> Result<Option<i32>, String> {
    if !(200..300).contains(&reply.status) {
        let status = reply.status;
        return Err(format!(
            "answered OPTIONS, which asks for its consent, with status {status}"
        ));
    }
    let text = |name| {
        reply
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let allowed = text(ALLOWED_ORIGIN).map_or("", str::trim);
    if allowed != ANY && !allowed.eq_ignore_ascii_case(origin) {
        return Err(format!(
            "does not consent: its WebHook-Allowed-Origin is neither * nor {origin}"
        ));
    }
    let Some(rate) = text(ALLOWED_RATE)
        .map(str::trim)
        .filter(|rate| *rate != ANY)
    else {
        return Ok(None);
    };
    match rate.parse::<u32>() {
        Ok(rate @ 1..) => Ok(Some(i32::try_from(rate).unwrap_or(i32::MAX))),
        Ok(0) | Err(_) => {
            Err("has a WebHook-Allowed-Rate that is neither * nor a number above 0".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "x.cursus";

    fn answer(status: u16, lines: &[(&'static str, &'static str)]) -> Result<Option<i32>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let body = bytes::Bytes::new();
        granted(
            &Reply {
                status,
                headers,
                body,
            },
            ORIGIN,
        )
    }

    #[test]
    fn an_endpoint_consents_to_an_origin_and_a_rate() {
        let any = (ALLOWED_ORIGIN, "*");
        assert_eq!(answer(204, &[any]), Ok(None));
        assert_eq!(answer(200, &[any, (ALLOWED_RATE, "*")]), Ok(None));
        let named = (ALLOWED_ORIGIN, "X.cursus");
        assert_eq!(answer(200, &[named, (ALLOWED_RATE, "120")]), Ok(Some(120)));
        for (status, lines) in [
            (200, &[][..]),
            (405, &[any]),
            (307, &[any]),
            (200, &[(ALLOWED_ORIGIN, "y.cursus")]),
            (200, &[any, (ALLOWED_RATE, "0")]),
            (200, &[any, (ALLOWED_RATE, "many")]),
        ] {
            assert!(answer(status, lines).is_err(), "{status} {lines:?}");
        }
    }

    #[test]
    fn the_rate_that_is_wanted_is_the_one_of_the_settings() {
        let wanted = |limits: &str| {
            let text = format!(r#"{{"limits":{limits}}}"#);
            wanted_per_minute(&serde_json::from_str(&text).unwrap())
        };
        assert_eq!(wanted("{}"), None);
        assert_eq!(wanted(r#"{"per_minute":7}"#), Some(7));
        assert_eq!(wanted(r#"{"per_second":7}"#), Some(420));
    }
}
