//! Query strings. Every parameter must be known, in range and given once; otherwise an error names it as
//! a parameter.

use api::limits::{CURSOR_CHARS_MAX, KEY_CHARS_MAX, PAGE, PAGE_DEFAULT};
use api::message::check_text;
use api::{FieldError, MessageId, Problem, TenantName, Timestamp};
use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;

use crate::engine::{Browse, BrowseFrom};
use crate::http::answer::problem::Refusal;

/// The pairs of a query string that are not read yet, and the errors found so far.
pub(in crate::http) struct Pairs {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Pairs {
    pub(in crate::http) fn of(uri: &Uri) -> Self {
        match Query::try_from_uri(uri) {
            Ok(Query(pairs)) => Self {
                pairs,
                errors: Vec::new(),
            },
            Err(_) => Self {
                pairs: Vec::new(),
                errors: vec![FieldError::of_parameter(
                    "",
                    "must be UTF-8, percent-encoded",
                )],
            },
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == name)?;
        Some(self.pairs.remove(at).1)
    }

    fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::of_parameter(name, detail));
    }

    pub(in crate::http) fn limit(&mut self) -> u32 {
        let Some(text) = self.take("limit") else {
            return PAGE_DEFAULT;
        };
        let limit = text.parse().ok().filter(|limit| PAGE.contains(limit));
        limit.unwrap_or_else(|| {
            let detail = format!("must be {} to {}", PAGE.start(), PAGE.end());
            self.refuse("limit", detail);
            PAGE_DEFAULT
        })
    }

    /// The value of a parameter, converted by `read`. If that returns `None`, the error has the text `must`.
    pub(in crate::http) fn parsed<T>(
        &mut self,
        name: &str,
        must: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.take(name)?;
        let value = read(&text);
        if value.is_none() {
            self.refuse(name, must);
        }
        value
    }

    fn text(&mut self, name: &str, max: usize) -> Option<String> {
        let text = self.take(name)?;
        check_text(&mut self.errors, || format!("parameter:{name}"), &text, max);
        Some(text)
    }

    /// Refuses every parameter that was not read. A misspelled or repeated parameter is never ignored.
    pub(in crate::http) fn finish<T>(mut self, value: T) -> Result<T, Refusal> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            self.refuse(
                &name,
                "is not a parameter of this route, or occurs more than once",
            );
        }
        if self.errors.is_empty() {
            return Ok(value);
        }
        Err(Problem::invalid(self.errors).into())
    }
}

/// A time in a query (RFC 3339). A `+` that was not percent-encoded arrives as a space, and is restored.
pub(in crate::http) fn time(text: &str) -> Option<Timestamp> {
    text.replace(' ', "+").parse().ok()
}

/// Refuses any parameter, for routes without parameters.
pub(in crate::http) fn none(uri: &Uri) -> Result<(), Refusal> {
    match uri.query() {
        None => Ok(()),
        Some(_) => Pairs::of(uri).finish(()),
    }
}

/// The requested page of a list; documented as [`api::list::PageQuery`].
pub(in crate::http) struct PageOf {
    /// `next` of the previous page.
    pub(in crate::http) after: Option<String>,
    /// Most items to return.
    pub(in crate::http) limit: u32,
}

impl<S: Sync> FromRequestParts<S> for PageOf {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut pairs = Pairs::of(&parts.uri);
        let (limit, after) = (pairs.limit(), pairs.text("after", CURSOR_CHARS_MAX));
        pairs.finish(Self { after, limit })
    }
}

/// The requested page of the audit log.
pub(in crate::http) struct AuditOf {
    /// Return only entries of this tenant.
    pub(in crate::http) tenant: Option<TenantName>,
    /// `next` of the previous page.
    pub(in crate::http) after: Option<i64>,
    /// Most entries to return.
    pub(in crate::http) limit: u32,
}

impl<S: Sync> FromRequestParts<S> for AuditOf {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut pairs = Pairs::of(&parts.uri);
        let limit = pairs.limit();
        let tenant = pairs.parsed("tenant", "must be the name of a tenant", |text| {
            text.parse().ok()
        });
        let after = pairs.parsed("after", "must be the next of the page before", |text| {
            text.parse().ok()
        });
        pairs.finish(Self {
            tenant,
            after,
            limit,
        })
    }
}

/// The requested messages of a topic.
pub(in crate::http) struct BrowseQuery(pub(in crate::http) Browse);

impl<S: Sync> FromRequestParts<S> for BrowseQuery {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        browse(&parts.uri).map(Self)
    }
}

fn browse(uri: &Uri) -> Result<Browse, Refusal> {
    let mut pairs = Pairs::of(uri);
    let (key, tag) = (
        pairs.text("key", KEY_CHARS_MAX),
        pairs.text("tag", KEY_CHARS_MAX),
    );
    let (limit, from, after) = (pairs.limit(), pairs.take("from"), pairs.take("after"));
    let from = from.map(|text| {
        browse_from(&text).unwrap_or_else(|| {
            pairs.refuse("from", "must be start, a time (RFC 3339) or a message id");
            BrowseFrom::Start
        })
    });
    let after = after.map(|text| {
        text.parse().map(BrowseFrom::After).unwrap_or_else(|()| {
            pairs.refuse("after", "must be the next of the page before");
            BrowseFrom::Start
        })
    });
    // A client gets the next page by repeating its query with `after`, which is further on than `from`.
    let from = after.or(from).unwrap_or(BrowseFrom::Start);
    pairs.finish(Browse {
        from,
        limit,
        key,
        tag,
    })
}

fn browse_from(text: &str) -> Option<BrowseFrom> {
    if text == "start" {
        return Some(BrowseFrom::Start);
    }
    let id = text.parse::<MessageId>().map(BrowseFrom::Message).ok();
    id.or_else(|| time(text).map(BrowseFrom::Time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Browse, Refusal> {
        browse(&format!("/v1/topics/t/messages?{query}").parse().unwrap())
    }

    #[test]
    fn a_browse_begins_where_the_query_says() {
        assert!(matches!(parse("").unwrap().from, BrowseFrom::Start));
        assert!(matches!(
            parse("from=start").unwrap().from,
            BrowseFrom::Start
        ));
        let at = parse("from=2026-01-31T12:00:00%2B00:00").unwrap().from;
        assert!(matches!(
            at,
            BrowseFrom::Time(Timestamp(1_769_860_800_000_000))
        ));
        let id = "000000010000000002s3";
        assert!(matches!(
            parse(&format!("from={id}")).unwrap().from,
            BrowseFrom::Message(_)
        ));
        let after = parse(&format!("after={id}&limit=1000&key=k&tag=t")).unwrap();
        assert!(matches!(after.from, BrowseFrom::After(after) if after.since.is_none()));
        let both = parse(&format!("from=start&after={id}")).unwrap();
        assert!(matches!(both.from, BrowseFrom::After(_)));
        assert_eq!((after.limit, after.key.as_deref()), (1000, Some("k")));
    }

    #[test]
    fn a_route_without_parameters_takes_none() {
        let none = |uri: &str| none(&uri.parse().unwrap());
        assert!(none("/v1/topics/t").is_ok() && none("/v1/topics/t?").is_ok());
        let refusal = format!("{:?}", none("/v1/topics/t?wait=5").unwrap_err());
        assert!(refusal.contains("parameter:wait"), "{refusal}");
    }

    #[test]
    fn a_parameter_that_is_wrong_unknown_or_given_twice_is_named() {
        for (query, name) in [
            ("limit=0", "parameter:limit"),
            ("limit=1001", "parameter:limit"),
            ("limit=x", "parameter:limit"),
            ("limit=1&limit=2", "parameter:limit"),
            ("from=yesterday", "parameter:from"),
            (
                "from=yesterday&after=000000010000000002s3",
                "parameter:from",
            ),
            ("after=1", "parameter:after"),
            ("colour=red", "parameter:colour"),
            ("key=", "parameter:key"),
        ] {
            let refusal = format!("{:?}", parse(query).unwrap_err());
            assert!(refusal.contains(name), "{query}: {refusal}");
        }
    }
}
