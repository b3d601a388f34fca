//! A page of a list as a response, with a `Link` to the next page. Called by every route that lists.

use api::list::Page;
use axum::http::header::LINK;
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::request::json::Json;

/// Adds a `Link` to the next page (RFC 8288): the same query with another `after`. Cursors need no escaping in a query.
pub(in crate::http) fn linked(uri: &Uri, next: Option<&str>, page: impl IntoResponse) -> Response {
    let mut response = page.into_response();
    if let Some(next) = next {
        let mut link = format!("<{}?", uri.path());
        let pairs = uri.query().unwrap_or("").split('&');
        for pair in pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("after=")) {
            link.push_str(pair);
            link.push('&');
        }
        link.push_str(&format!("after={next}>; rel=\"next\""));
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(LINK, link);
        }
    }
    response
}

/// A page of a list as a JSON response, linked to the next page.
pub(in crate::http) fn paged<T: Serialize>(uri: &Uri, page: Page<T>) -> Response {
    let next = page.next.clone();
    linked(uri, next.as_deref(), Json(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_links_to_the_next_one_with_the_same_query() {
        let link = |uri: &str, next| {
            let response = linked(&uri.parse().unwrap(), next, ());
            let link = response.headers().get(LINK);
            link.map(|link| link.to_str().unwrap().to_owned())
        };
        assert_eq!(link("/v1/topics?limit=1", None), None);
        for (uri, expected) in [
            ("/v1/topics", "</v1/topics?after=b>; rel=\"next\""),
            (
                "/v1/topics?after=a&limit=1",
                "</v1/topics?limit=1&after=b>; rel=\"next\"",
            ),
        ] {
            assert_eq!(link(uri, Some("b")).as_deref(), Some(expected));
        }
    }
}
