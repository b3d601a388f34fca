//! Requests to the outside: the only module that makes any. Bounded in time and bytes (I9), and never led elsewhere by a
//! redirect. Called by `engine`, never inside a transaction. What an answer means for whoever asked is theirs to say.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(5);
/// For who takes what is sent: Standard Webhooks ask for 15 to 30 seconds.
const POST_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of the answer to a post that are read, so that its connection serves the next one.
const POST_ANSWER_BYTES_MAX: usize = 16 << 10;
/// Characters of a header that is passed on.
const HEADER_CHARS_MAX: usize = 64;
/// The status of what is gone for good.
const GONE: u16 = 410;

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side does not answer, or not to the end.
    #[error("no answer")]
    Unreachable(#[from] reqwest::Error),
    /// It answers, but not with what was asked for.
    #[error("status {0}")]
    Status(u16),
    /// Its answer is too long.
    #[error("more than {0} bytes")]
    TooLong(usize),
}

/// The answer to a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// When it says to try again, as it says it.
    pub retry_after: Option<String>,
}

impl Answer {
    /// Whether what was sent is taken.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether nothing is to be sent there ever again.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status == GONE
    }
}

/// A client for all outbound requests.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client,
}

impl Outbound {
    /// # Errors
    /// When the system's certificates cannot be used.
    pub fn new() -> Result<Self, Error> {
        // The client wants to know who does TLS; another part of the program may have said it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("cursus/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client })
    }

    /// The body of a successful answer of `bytes_max` at most.
    ///
    /// # Errors
    /// When there is no such answer.
    pub async fn get(&self, url: &str, bytes_max: usize) -> Result<Bytes, Error> {
        let mut response = self.client.get(url).send().await?;
        if !response.status().is_success() {
            return Err(Error::Status(response.status().as_u16()));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > bytes_max {
                return Err(Error::TooLong(bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Sends a body with these headers; whatever status comes is an answer.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<Answer, Error> {
        let mut request = self.client.post(url).timeout(POST_TIMEOUT).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send().await?;
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok());
        let retry_after = retry_after.filter(|value| value.len() <= HEADER_CHARS_MAX);
        let answer = Answer {
            status: response.status().as_u16(),
            retry_after: retry_after.map(str::to_owned),
        };
        let mut read = 0;
        // The head says it all; a body that breaks off changes nothing.
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > POST_ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok(answer)
    }
}

/// Whether a URL has a user or a password in it.
#[must_use]
pub fn names_a_user(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
}

/// Whether nobody on the way can read or change what is asked there: `https`, or a loopback address.
#[must_use]
pub fn is_private(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let Some(host) = url.host_str() else {
        return false;
    };
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_loopback = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_private() {
        for url in [
            "https://login.example/jwks",
            "http://127.0.0.1:8080/jwks",
            "http://[::1]/jwks",
            "http://localhost/jwks",
        ] {
            assert!(is_private(url), "{url}");
        }
        for url in [
            "http://login.example/jwks",
            "http://localhost.example.com/",
            "file:///etc/passwd",
            "jwks.json",
            "",
        ] {
            assert!(!is_private(url), "{url}");
        }
    }

    #[test]
    fn a_user_in_a_url_is_seen() {
        for url in [
            "https://me@a/",
            "https://me:secret@a/",
            "https://:secret@a/",
        ] {
            assert!(names_a_user(url), "{url}");
        }
        assert!(!names_a_user("https://a/@me"));
    }
}
