//! An HTTP client, and a request with its answer in JSON.

use std::net::SocketAddr;

use bytes::Bytes;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

pub(crate) fn client() -> reqwest::Client {
    // The client needs a TLS provider, also where it does no TLS.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) fn request(
    client: &reqwest::Client,
    key: Option<&str>,
    method: Method,
    at: SocketAddr,
    path: &str,
) -> RequestBuilder {
    let request = client.request(method, format!("http://{at}{path}"));
    match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

/// Status and JSON; null when the answer has no body.
pub(crate) async fn send(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Bytes = response.bytes().await.unwrap();
    let value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).unwrap()
    };
    (status, value)
}
