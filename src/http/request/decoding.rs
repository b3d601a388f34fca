//! Request bodies in gzip or zstd, decoded while they are read. `layer` calls this only for requests with a
//! `Content-Encoding`; other requests do not carry the wrapped body. Limits apply to decoded bytes.

use std::io;

use api::ErrorCode;
use api::limits::ZSTD_WINDOW_LOG_MAX;
use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::http::answer::problem::Refusal;

/// Decoded bytes per step.
const PIECE_BYTES: usize = 32 << 10;

/// The supported codings.
enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    fn of(value: &HeaderValue) -> Option<Self> {
        let is = |name: &str| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
        match () {
            // `x-gzip` is the same coding (RFC 9110, section 8.4.1.3).
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("zstd") => Some(Self::Zstd),
            () if is("identity") => Some(Self::Identity),
            () => None,
        }
    }
}

/// Wraps the body of a request in its decoder. [`check`] has refused unsupported codings.
pub(in crate::http) fn decoded(mut request: Request) -> Request {
    let header = request.headers_mut().remove(CONTENT_ENCODING);
    let coding = header.as_ref().and_then(Coding::of);
    if let None | Some(Coding::Identity) = coding {
        return request;
    }
    request.headers_mut().remove(CONTENT_LENGTH);
    request.map(|body| {
        let coded = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        if let Some(Coding::Gzip) = coding {
            let mut decoder = GzipDecoder::new(coded);
            // A gzip file may have several members, as `cat a.gz b.gz` and many log shippers produce. Its content is
            // their concatenation.
            decoder.multiple_members(true);
            pieces(decoder)
        } else {
            let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
            let mut decoder = ZstdDecoder::with_params(coded, &[window]);
            decoder.multiple_members(true);
            pieces(decoder)
        }
    })
}

fn pieces(decoder: impl AsyncRead + Send + 'static) -> Body {
    Body::from_stream(ReaderStream::with_capacity(decoder, PIECE_BYTES))
}

/// Refuses a request with an unsupported coding.
pub(in crate::http) fn check(request: &Request) -> Option<Response> {
    let mut codings = request.headers().get_all(CONTENT_ENCODING).iter();
    let coding = codings.next()?;
    if Coding::of(coding).is_some() && codings.next().is_none() {
        return None;
    }
    let detail = "Content-Encoding must be one of gzip, zstd and identity";
    let mut response = Refusal::new(ErrorCode::UnsupportedMediaType, detail).into_response();
    response
        .headers_mut()
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use async_compression::tokio::bufread::GzipEncoder;
    use http_body_util::BodyExt;
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn decode(coding: &str, body: Vec<u8>) -> Result<Vec<u8>, axum::Error> {
        let request = Request::builder()
            .header(CONTENT_ENCODING, coding)
            .header(CONTENT_LENGTH, body.len());
        let request = request.body(Body::from(body)).unwrap();
        assert!(check(&request).is_none(), "{coding}");
        let request = decoded(request);
        assert!(request.headers().get(CONTENT_ENCODING).is_none());
        let bytes = request.into_body().collect().await?;
        Ok(bytes.to_bytes().to_vec())
    }

    async fn gzip(text: &str) -> Vec<u8> {
        let mut coded = Vec::new();
        let mut encoder = GzipEncoder::new(text.as_bytes());
        encoder.read_to_end(&mut coded).await.unwrap();
        coded
    }

    fn zstd(text: &[u8], window_log: u32) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn all_members_of_a_gzip_body_are_read() {
        let both = [gzip("hello, ").await, gzip("world").await].concat();
        for coding in ["gzip", "GZip", "x-gzip"] {
            assert_eq!(
                decode(coding, both.clone()).await.unwrap(),
                b"hello, world",
                "{coding}"
            );
        }
        assert_eq!(
            decode("identity", b"as is".to_vec()).await.unwrap(),
            b"as is"
        );
    }

    #[tokio::test]
    async fn a_body_that_is_cut_or_followed_by_something_else_is_an_error() {
        let good = gzip("hello").await;
        for bad in [
            good[..good.len() - 1].to_vec(),
            [&good[..], b"else"].concat(),
            b"no gzip".to_vec(),
        ] {
            assert!(decode("gzip", bad).await.is_err());
        }
        let good = zstd(b"hello", 20);
        assert!(
            decode("zstd", good[..good.len() - 1].to_vec())
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_zstd_body_asks_for_a_window_of_8_mib_at_most() {
        let text = vec![b'x'; 100_000];
        let both = [zstd(&text, 23), zstd(b"y", 20)].concat();
        assert_eq!(decode("ZSTD", both).await.unwrap().len(), 100_001);
        assert!(decode("zstd", zstd(&text, 24)).await.is_err());
    }
}
