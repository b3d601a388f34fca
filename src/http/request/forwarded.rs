//! The client of a request: the peer of its connection, or, if that is a proxy which the operator trusts, the address
//! that the proxy names in `Forwarded` (RFC 7239). What a client writes there itself is behind what the last trusted
//! proxy added, and never read.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::header::FORWARDED;

/// The address of the client; `peer` when no trusted proxy names one.
pub(super) fn client(
    headers: &HeaderMap,
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    let mut hops = headers.get_all(FORWARDED).iter().rev().flat_map(|value| {
        let hops = split(value.to_str().unwrap_or(""), ',');
        hops.into_iter().rev().map(node)
    });
    while is_trusted(client) {
        // No address, or a name that says nothing (`unknown`): nobody further away is known.
        let Some(Some(next)) = hops.next() else {
            break;
        };
        client = next;
    }
    client
}

/// The address in the `for` of one hop.
fn node(hop: &str) -> Option<IpAddr> {
    let pairs = split(hop, ';');
    let named = pairs.into_iter().find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| value.trim())
    })?;
    let node = named.trim_matches('"');
    let bare = node.trim_matches(['[', ']']);
    let with_port = node.parse().ok().map(|address: SocketAddr| address.ip());
    with_port.or_else(|| bare.parse().ok())
}

/// The parts of a text between separators that are not in quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut is_quoted = false;
    text.split(|char| {
        is_quoted ^= char == '"';
        char == separator && !is_quoted
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED, line.parse().unwrap());
        }
        let is_trusted = |ip: IpAddr| ip.to_string().starts_with("10.");
        client(&headers, "10.0.0.1".parse().unwrap(), is_trusted).to_string()
    }

    #[test]
    fn the_nearest_address_that_is_no_trusted_proxy_is_the_client() {
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&["for=192.0.2.1"], "192.0.2.1"),
            (
                &["For=\"192.0.2.1:4711\"; proto=https;by=10.0.0.1"],
                "192.0.2.1",
            ),
            (&["for=\"[2001:db8::1]:4711\""], "2001:db8::1"),
            (&["for=\"[2001:db8::1]\""], "2001:db8::1"),
            // What the client wrote is in front.
            (
                &["for=198.51.100.9, for=192.0.2.1, for=10.0.0.2"],
                "192.0.2.1",
            ),
            (&["for=198.51.100.9", "for=192.0.2.1"], "192.0.2.1"),
            (&["for=198.51.100.9, for=unknown"], "10.0.0.1"),
            (&["for=198.51.100.9, proto=https"], "10.0.0.1"),
            (&["for=\"a,for=1.1.1.1;\", for=192.0.2.1"], "192.0.2.1"),
            (&["for=10.0.0.3"], "10.0.0.3"),
            (&["?"], "10.0.0.1"),
        ] {
            assert_eq!(of(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_peer_that_is_not_trusted_says_nothing_about_itself() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, "for=192.0.2.1".parse().unwrap());
        let peer: IpAddr = "198.51.100.1".parse().unwrap();
        assert_eq!(client(&headers, peer, |_| false), peer);
    }
}
