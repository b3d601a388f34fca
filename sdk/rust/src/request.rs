//! A request before it is sent.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::error::Error;

/// A request to the service.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) wait: Duration,
    pub(crate) once: bool,
}

impl Request {
    /// A request without a body. `path` begins with a slash and may have a query.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            wait: Duration::ZERO,
            once: false,
        }
    }

    /// The same with a body of this media type.
    ///
    /// # Errors
    /// When the type cannot be a header.
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Result<Self, Error> {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// The same with a JSON body.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn json(mut self, body: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Invalid(error.to_string()))?;
        self.body = Bytes::from(body);
        let json = HeaderValue::from_static("application/json");
        self.headers.insert(CONTENT_TYPE, json);
        Ok(self)
    }

    /// The same with a header.
    ///
    /// # Errors
    /// When name or value cannot be one.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let wrong = || Error::Invalid(format!("{name}: {value:?} cannot be a header"));
        let named = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        self.headers.insert(named, value);
        Ok(self)
    }

    /// The same with an `Idempotency-Key` of its own: a repetition publishes nothing twice.
    pub(crate) fn idempotent(self, key: Option<&str>) -> Result<Self, Error> {
        let key = match key {
            Some(key) => format!("\"{key}\""),
            None => format!("\"{}\"", uuid::Uuid::new_v4()),
        };
        self.header("idempotency-key", &key)
    }

    /// The same, whose answer the service may hold back for this time.
    #[must_use]
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The same, which is not repeated when it may have had an effect: creating a key twice would be two keys.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }
}

/// A text as one segment of a path, or as a value of a query.
#[must_use]
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
