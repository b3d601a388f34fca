//! Protects a node that needs no key (embedded mode). It listens on loopback, but every browser on the machine can
//! connect to it. A page of another site is recognised by its `Origin`, or by `Sec-Fetch-Site` where a browser sends no
//! `Origin`: for scripts, images and frames. A page that makes its own name point to 127.0.0.1 (DNS rebinding) is
//! recognised by its `Host`. Other clients send none of these, but a `Host` of loopback; for them the check is one
//! comparison.

use std::net::IpAddr;

use api::ErrorCode;
use api::error::echo;
use axum::extract::Request;
use axum::http::header::ORIGIN;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};

use crate::http::answer::problem::Refusal;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What a browser says of the page that made it send a request (W3C Fetch Metadata).
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::http) struct Site<'a> {
    site: Option<&'a HeaderValue>,
    mode: Option<&'a HeaderValue>,
    dest: Option<&'a HeaderValue>,
    /// The headers, if they have an `Origin`.
    origins: Option<&'a HeaderMap>,
}

impl<'a> Site<'a> {
    /// Takes note of a header.
    pub(in crate::http) fn read(&mut self, name: &HeaderName, value: &'a HeaderValue) {
        if *name == FETCH_SITE {
            self.site = Some(value);
        } else if *name == FETCH_MODE {
            self.mode = Some(value);
        } else if *name == FETCH_DEST {
            self.dest = Some(value);
        }
    }

    /// The same, of a request with an `Origin`.
    pub(in crate::http) fn with_origins(self, headers: &'a HeaderMap) -> Self {
        Self {
            origins: Some(headers),
            ..self
        }
    }

    /// The header that names a page of another site, and its value.
    fn foreign(self, method: &Method) -> Option<(&'static str, &'a str)> {
        if let Some(headers) = self.origins {
            // A browser that sends both means the same by both, and `Origin` says more: pages of this machine may ask.
            let mut origins = headers.get_all(ORIGIN).iter().map(text);
            return Some(("Origin", origins.find(|origin| !is_local(origin))?));
        }
        let site = text(self.site?);
        let is_ours = matches!(site, "same-origin" | "none");
        (!is_ours && !self.opens_a_page(method)).then_some(("Sec-Fetch-Site", site))
    }

    /// Whether a person follows a link. The other site sees nothing of what it leads to.
    fn opens_a_page(self, method: &Method) -> bool {
        let is = |header: Option<&HeaderValue>, text| header.is_some_and(|value| value == text);
        method.is_safe() && is(self.mode, "navigate") && is(self.dest, "document")
    }
}

/// Refuses a request that may come from a page of another site; `host` is the value of its header.
pub(in crate::http) fn foreign(
    request: &Request,
    host: Option<&HeaderValue>,
    site: Site<'_>,
) -> Option<Response> {
    // HTTP/2 has the host in its target. A request without any host is not from a browser.
    let target = request.uri().authority().map(Authority::as_str);
    let host = target.or_else(|| host.map(text));
    let foreign = host
        .filter(|host| !is_loopback(host))
        .map(|host| ("Host", host));
    let (header, given) = foreign.or_else(|| site.foreign(request.method()))?;
    let detail = format!(
        "this node needs no key, so it serves only this machine: {header} must be {}, not {}",
        if header == "Sec-Fetch-Site" {
            "same-origin or none"
        } else {
            "loopback or localhost"
        },
        echo(given)
    );
    Some(Refusal::new(ErrorCode::Forbidden, detail).into_response())
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

/// Whether an origin (`http://localhost:3000`) is on this machine; `null` may be any site.
fn is_local(origin: &str) -> bool {
    origin
        .split_once("://")
        .is_some_and(|(_, host)| is_loopback(host))
}

/// Whether a host, with or without a port, is this machine.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or("");
    // The common case, which does not need the parser.
    host == "127.0.0.1"
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || host.eq_ignore_ascii_case("localhost")
        // Names below `localhost` are on this machine, too (RFC 6761).
        || host.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::HOST;

    use super::*;

    fn asked(method: Method, uri: &str, lines: &[(HeaderName, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in lines {
            request = request.header(name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let headers = request.headers();
        let mut site = Site::default();
        for (name, value) in headers {
            site.read(name, value);
        }
        if headers.contains_key(ORIGIN) {
            site = site.with_origins(headers);
        }
        let response = foreign(&request, headers.get(HOST), site);
        response.map(|response| response.status().as_u16())
    }

    fn status(uri: &str, lines: &[(HeaderName, &str)]) -> Option<u16> {
        asked(Method::GET, uri, lines)
    }

    #[test]
    fn what_comes_from_this_machine_is_let_in() {
        for host in [
            "127.0.0.1:8080",
            "localhost:8080",
            "LocalHost",
            "[::1]:8080",
            "127.9.9.9",
            "a.localhost:1",
        ] {
            assert_eq!(status("/x", &[(HOST, host)]), None, "{host}");
        }
        assert_eq!(status("/x", &[]), None, "HTTP/1.0");
        assert_eq!(status("http://localhost/x", &[]), None, "HTTP/2");
        let page = [(HOST, "localhost:8080"), (ORIGIN, "http://127.0.0.1:3000")];
        assert_eq!(status("/x", &page), None);
    }

    #[test]
    fn pages_of_other_sites_are_kept_out() {
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost.evil.example",
            "",
        ] {
            assert_eq!(status("/x", &[(HOST, host)]), Some(403), "{host}");
        }
        assert_eq!(status("http://evil.example/x", &[]), Some(403), "HTTP/2");
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
            "http://10.0.0.1",
        ] {
            let lines = [(HOST, "localhost:8080"), (ORIGIN, origin)];
            assert_eq!(status("/x", &lines), Some(403), "{origin}");
        }
    }

    #[test]
    fn what_a_page_of_another_site_loads_is_kept_out_and_its_links_lead_in() {
        let asked = |method: &Method, site, mode, dest| {
            let lines = [
                (HOST, "localhost:8080"),
                (FETCH_SITE, site),
                (FETCH_MODE, mode),
                (FETCH_DEST, dest),
            ];
            asked(method.clone(), "/x", &lines)
        };
        for (site, is_in) in [
            ("same-origin", true),
            ("none", true),
            ("same-site", false),
            ("cross-site", false),
            ("something-new", false),
        ] {
            for (mode, dest) in [
                ("no-cors", "script"),
                ("no-cors", "image"),
                ("navigate", "iframe"),
                ("navigate", "object"),
                ("websocket", "empty"),
            ] {
                let status = asked(&Method::GET, site, mode, dest);
                assert_eq!(status.is_none(), is_in, "{site} {mode} {dest}");
            }
            let followed = asked(&Method::GET, site, "navigate", "document");
            assert_eq!(followed, None, "{site}");
            let submitted = asked(&Method::POST, site, "navigate", "document");
            assert_eq!(submitted.is_none(), is_in, "{site}");
        }
        // A page of this machine that says so.
        let page = [
            (HOST, "localhost:8080"),
            (ORIGIN, "http://127.0.0.1:3000"),
            (FETCH_SITE, "cross-site"),
        ];
        assert_eq!(status("/x", &page), None);
    }
}
