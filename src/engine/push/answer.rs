//! What an endpoint's answer means: for the message, for the endpoint, and as text. Pure.

use std::time::Duration;

use api::limits::REASON_CHARS_MAX;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::engine::push::flow::Ended;
use crate::outbound::{self, HeaderMap, Reply};

/// Characters of a `Retry-After`; a longer one is ignored.
const RETRY_AFTER_CHARS_MAX: usize = 64;
/// Header of an answer 202 by which the endpoint settles messages itself, later.
const SETTLE: &str = "cursus-settle";
/// Its value.
const LATER: &str = "later";
/// Headers of an answer that a dead letter shows.
const SHOWN: [&str; 4] = ["content-type", "retry-after", "server", "x-request-id"];

/// What becomes of the messages of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are done.
    Done,
    /// The endpoint settles them by their receipts.
    Later,
    /// They are sent again.
    Again {
        /// No earlier than after this pause.
        pause: Option<Duration>,
    },
    /// They are sent again, but not to this endpoint, which is gone.
    Gone,
}

impl Verdict {
    /// Whether the endpoint has taken them.
    #[must_use]
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Done | Self::Later)
    }
}

/// What an answer means for its messages.
#[must_use]
pub fn verdict(reply: &Reply, at: OffsetDateTime) -> Verdict {
    match reply.status {
        202 if reply
            .headers
            .get(SETTLE)
            .is_some_and(|value| value == LATER) =>
        {
            Verdict::Later
        }
        200..300 => Verdict::Done,
        410 => Verdict::Gone,
        _ => Verdict::Again {
            pause: retry_after(&reply.headers, at),
        },
    }
}

/// What an answer means for the endpoint. A refusal of one message is no trouble; a refusal of any request is.
#[must_use]
pub fn ended(reply: &Reply, verdict: Verdict) -> Ended {
    let pause = match (reply.status, verdict) {
        (429 | 502..=504, Verdict::Again { pause }) => pause,
        _ => None,
    };
    match reply.status {
        200..300 | 400 | 402 | 406 | 409 | 411..=418 | 420..=424 | 426..=428 | 430..500 => {
            Ended::Good
        }
        _ => Ended::Trouble { pause },
    }
}

/// The pause that the header `Retry-After` asks for.
fn retry_after(headers: &HeaderMap, at: OffsetDateTime) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok();
    until(text.filter(|text| text.len() <= RETRY_AFTER_CHARS_MAX)?, at)
}

/// The pause that `Retry-After` asks for (RFC 9110): seconds, or a date.
fn until(text: &str, at: OffsetDateTime) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(Duration::try_from(date - at).unwrap_or_default())
}

/// A failure in a few words.
#[must_use]
pub fn in_short(result: &Result<Reply, outbound::Error>) -> String {
    match result {
        Ok(reply) => format!("answered with status {}", reply.status),
        Err(error) => error.to_string(),
    }
}

/// Why messages are dead-lettered: the status, some headers and the first bytes of the last answer.
#[must_use]
pub fn reason(result: &Result<Reply, outbound::Error>) -> String {
    let Ok(reply) = result else {
        return in_short(result);
    };
    let mut text = format!("status {}", reply.status);
    for name in SHOWN {
        if let Some(value) = reply.headers.get(name) {
            let value = String::from_utf8_lossy(value.as_bytes());
            text.push_str(&format!("; {name}: {value}"));
        }
    }
    if let Some(body) = start_of(&reply.body) {
        text.push_str("; body: ");
        text.push_str(&body);
    }
    let text = text.replace(|c: char| c.is_control(), " ");
    text.chars().take(REASON_CHARS_MAX).collect()
}

/// The first bytes of a body as text, with a space for each control character; `None` when there are none.
#[must_use]
pub fn start_of(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = text.replace(|c: char| c.is_control(), " ");
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn reply(status: u16, headers: &[(&'static str, &'static str)], body: &'static [u8]) -> Reply {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Reply {
            status,
            headers: headers.collect(),
            body: body.into(),
        }
    }

    #[test]
    fn only_success_is_taken_and_410_is_the_end() {
        let at = datetime!(1994-11-06 08:49:00 UTC);
        let of = |status, headers: &[_]| verdict(&reply(status, headers, b""), at);
        assert_eq!(of(204, &[]), Verdict::Done);
        assert_eq!(of(202, &[]), Verdict::Done);
        assert_eq!(of(202, &[("cursus-settle", "later")]), Verdict::Later);
        assert_eq!(of(200, &[("cursus-settle", "later")]), Verdict::Done);
        assert_eq!(of(410, &[]), Verdict::Gone);
        let pause = |seconds| Verdict::Again {
            pause: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(of(503, &[("retry-after", "120")]), pause(120));
        let date = ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(of(429, &[date]), pause(37));
        assert_eq!(
            of(500, &[("retry-after", "soon")]),
            Verdict::Again { pause: None }
        );
        for status in [100, 301, 302, 304, 400, 404, 500] {
            assert_eq!(of(status, &[]), Verdict::Again { pause: None }, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let at = datetime!(1994-11-06 08:49:00 UTC);
        let of = |text| until(text, at).map(|pause| pause.as_secs());
        assert_eq!(of("120"), Some(120));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(37));
        assert_eq!(of("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "it is over");
        for text in ["", "soon", "-1", "1.5"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn a_refused_message_is_no_trouble_of_the_endpoint() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let of = |status| {
            let reply = reply(status, &[("retry-after", "9")], b"");
            ended(&reply, verdict(&reply, at))
        };
        for status in [200, 400, 409, 413, 422, 451] {
            assert_eq!(of(status), Ended::Good, "{status}");
        }
        for status in [301, 401, 403, 404, 408, 410, 425, 500, 501] {
            assert_eq!(of(status), Ended::Trouble { pause: None }, "{status}");
        }
        let pause = Some(Duration::from_secs(9));
        for status in [429, 502, 503, 504] {
            assert_eq!(of(status), Ended::Trouble { pause }, "{status}");
        }
    }

    #[test]
    fn a_dead_letter_says_what_the_endpoint_answered() {
        let headers = [("content-type", "text/plain"), ("set-cookie", "secret")];
        let result = Ok(reply(500, &headers, b"no\r\nsuch order\n"));
        let expected = "status 500; content-type: text/plain; body: no  such order";
        assert_eq!(reason(&result), expected);
        let long = Ok(reply(500, &[], &[b'x'; 4_000]));
        assert_eq!(reason(&long).len(), REASON_CHARS_MAX);
    }
}
