//! Protects a node that needs no key (embedded mode). It listens on loopback, but every browser on the machine can
//! connect to it. A page of another site is recognised by its `Origin`. A page that makes its own name point to
//! 127.0.0.1 (DNS rebinding) is recognised by its `Host`. Other clients send no `Origin` and a `Host` of loopback; for
//! them the check is one comparison.

use std::net::IpAddr;

use api::ErrorCode;
use api::error::echo;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::ORIGIN;
use axum::http::uri::Authority;
use axum::response::{IntoResponse, Response};

use crate::http::answer::problem::Refusal;

/// Refuses a request that may come from a page of another site; `host` is the value of its header.
pub(in crate::http) fn foreign(
    request: &Request,
    host: Option<&HeaderValue>,
    has_origin: bool,
) -> Option<Response> {
    // HTTP/2 has the host in its target. A request without any host is not from a browser.
    let target = request.uri().authority().map(Authority::as_str);
    let host = target.or_else(|| host.map(text));
    let mut foreign = host
        .filter(|host| !is_loopback(host))
        .map(|host| ("Host", host));
    if has_origin {
        let mut origins = request.headers().get_all(ORIGIN).iter().map(text);
        let origin = origins.find(|origin| !is_local(origin));
        foreign = foreign.or_else(|| Some(("Origin", origin?)));
    }
    let (header, given) = foreign?;
    let detail = format!(
        "this node needs no key, so it serves only this machine: {header} must be loopback or localhost, not {}",
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

    use super::*;

    fn status(uri: &str, lines: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let headers = request.headers();
        let response = foreign(
            &request,
            headers.get("host"),
            headers.contains_key("origin"),
        );
        response.map(|response| response.status().as_u16())
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
            assert_eq!(status("/x", &[("host", host)]), None, "{host}");
        }
        assert_eq!(status("/x", &[]), None, "HTTP/1.0");
        assert_eq!(status("http://localhost/x", &[]), None, "HTTP/2");
        let page = [
            ("host", "localhost:8080"),
            ("origin", "http://127.0.0.1:3000"),
        ];
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
            assert_eq!(status("/x", &[("host", host)]), Some(403), "{host}");
        }
        assert_eq!(status("http://evil.example/x", &[]), Some(403), "HTTP/2");
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
            "http://10.0.0.1",
        ] {
            let lines = [("host", "localhost:8080"), ("origin", origin)];
            assert_eq!(status("/x", &lines), Some(403), "{origin}");
        }
    }
}
