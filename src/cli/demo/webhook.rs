//! The endpoint of the demo: takes one delivery on a loopback port, and checks its signature (Standard Webhooks).

use std::convert::Infallible;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// An endpoint that waits.
pub(super) struct Endpoint {
    pub(super) url: String,
    deliveries: mpsc::Receiver<Delivery>,
}

/// A request that the service sent.
pub(super) struct Delivery {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Endpoint {
    pub(super) async fn listen() -> std::io::Result<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hook", socket.local_addr()?);
        let (got, deliveries) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let got = got.clone();
                let service = service_fn(move |request| answer(request, got.clone()));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { url, deliveries })
    }

    /// The next delivery.
    pub(super) async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }
}

async fn answer(
    request: Request<Incoming>,
    got: mpsc::Sender<Delivery>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if let Ok(body) = body.collect().await {
        let delivery = Delivery {
            headers: head.headers,
            body: body.to_bytes(),
        };
        let _ = got.send(delivery).await;
    }
    // An empty answer is a success.
    Ok(Response::new(Empty::new()))
}

impl Delivery {
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Whether the service that has this secret (`whsec_…`) signed it.
    pub(super) fn is_signed(&self, secret: &str) -> bool {
        let secret = BASE64_STANDARD.decode(secret.trim_start_matches("whsec_"));
        let Some(mut mac) = secret
            .ok()
            .and_then(|secret| Hmac::<Sha256>::new_from_slice(&secret).ok())
        else {
            return false;
        };
        mac.update(
            format!(
                "{}.{}.",
                self.header("webhook-id"),
                self.header("webhook-timestamp")
            )
            .as_bytes(),
        );
        mac.update(&self.body);
        let signature = self
            .header("webhook-signature")
            .split(' ')
            .find_map(|one| one.strip_prefix("v1,"));
        let signature = signature.and_then(|text| BASE64_STANDARD.decode(text).ok());
        signature.is_some_and(|signature| mac.verify_slice(&signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_checked_as_the_standard_says() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            (
                "webhook-signature",
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = Bytes::from_static(b"{\"test\": 2432232314}");
        let mut delivery = Delivery { headers, body };
        assert!(delivery.is_signed(secret));
        assert!(!delivery.is_signed("whsec_AAAA"));
        delivery.body = Bytes::from_static(b"{}");
        assert!(!delivery.is_signed(secret));
    }
}
