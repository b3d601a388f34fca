//! The responses that hyper sends itself, to a head that it cannot read. They have no body, so they are replaced by
//! problem documents like those of all other refusals. No request of the router ever has such a response: its refusals
//! have a body.

use api::{ErrorCode, Problem};

/// The response in place of this one, which hyper is about to write; `None` leaves it.
pub(super) fn instead_of(written: &[u8]) -> Option<Vec<u8>> {
    let rest = written.strip_prefix(b"HTTP/1.1 4")?;
    let has_no_body = written
        .windows(NO_BODY.len())
        .any(|window| window.eq_ignore_ascii_case(NO_BODY));
    if !has_no_body || !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let (reason, problem) = match rest.get(..2)? {
        b"00" => ("Bad Request", malformed()),
        b"31" => ("Request Header Fields Too Large", too_large()),
        b"14" => ("URI Too Long", too_large()),
        _ => return None,
    };
    let text = serde_json::to_string(&problem).ok()?;
    let status = problem.status;
    let length = text.len();
    let response = format!(
        "HTTP/1.1 {status} {reason}\r\nconnection: close\r\ncontent-type: application/problem+json\r\ncontent-length: \
         {length}\r\n\r\n{text}"
    );
    Some(response.into_bytes())
}

const NO_BODY: &[u8] = b"content-length: 0\r\n";

fn malformed() -> Problem {
    let detail = "the request is not HTTP/1.1: its line, a header or its framing is malformed";
    Problem::new(ErrorCode::InvalidRequest, detail)
}

fn too_large() -> Problem {
    let detail = format!(
        "the request line and headers are too long, or there are more than {} headers",
        api::limits::HEADERS_MAX
    );
    Problem::new(ErrorCode::HeadersTooLarge, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_without_a_body_is_replaced() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let problem = String::from_utf8(instead_of(bare.as_bytes()).unwrap()).unwrap();
        let (head, text) = problem.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 "));
        assert!(head.ends_with(&format!("content-length: {}", text.len())));
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.code, ErrorCode::HeadersTooLarge);
        for other in [
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "",
        ] {
            assert!(instead_of(other.as_bytes()).is_none(), "{other}");
        }
    }
}
