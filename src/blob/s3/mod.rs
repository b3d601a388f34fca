//! Objects in a bucket, by the S3 protocol. Retries what can be repeated: the SDK retries whole requests, `range`
//! retries reads whose body broke off. Does not limit how many requests run at once: `pool` does.

mod error;
mod multipart;
mod settings;

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, Delete, Object, ObjectIdentifier};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::try_unfold;
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

pub use settings::{S3Settings, Timeouts};

use super::backend::{Backend, Pieces, Request, Uploading};
use super::exact::exact;
use super::source::Source;
use super::{Error, Listed};
use error::failed;
use settings::{ATTEMPTS_MAX, BACKOFF};

/// Time limit of the check for `/readyz`.
const CHECK_WAIT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(super) struct S3 {
    client: Client,
    bucket: String,
    /// Empty, or ends with a slash.
    prefix: String,
    /// Of every body; `None` when the storage refuses checksums.
    checksum: Option<ChecksumAlgorithm>,
    timeouts: Timeouts,
    /// Aborts of uploads whose future was dropped.
    aborts: TaskTracker,
}

impl S3 {
    pub(super) async fn new(settings: S3Settings) -> Self {
        let prefix = match settings.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Self {
            client: settings.client().await,
            bucket: settings.bucket,
            prefix,
            checksum: settings.checksums.then_some(ChecksumAlgorithm::Crc32),
            timeouts: settings.timeouts,
            aborts: TaskTracker::new(),
        }
    }

    async fn range_once(&self, key: &str, range: &Range<u64>) -> Result<Bytes, Error> {
        let want = range.end - range.start;
        let once = RetryConfig::disabled();
        let pieces = self.get(key, range, Some(once)).await?;
        let mut pieces = std::pin::pin!(exact(pieces, key.to_owned(), want));
        let first = pieces.try_next().await?.unwrap_or_default();
        if first.len() as u64 == want {
            return Ok(first);
        }
        let mut body = BytesMut::from(first);
        while let Some(piece) = pieces.try_next().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    async fn get(
        &self,
        key: &str,
        range: &Range<u64>,
        retry: Option<RetryConfig>,
    ) -> Result<Pieces, Error> {
        let mut overrides = aws_sdk_s3::config::Builder::new();
        overrides.set_retry_config(retry);
        let response = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .range(format!("bytes={}-{}", range.start, range.end - 1))
            .customize()
            .config_override(overrides)
            .send()
            .await;
        match response {
            // The range begins beyond the end of the object, so the object is shorter than its metadata says.
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|r| r.status().as_u16() == 416) =>
            {
                Err(Error::Truncated {
                    key: key.to_owned(),
                    expected: range.end - range.start,
                    got: 0,
                })
            }
            response => pieces(response.map_err(failed("get", Some(key)))?, range),
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// `None` for a key outside of the prefix, or an entry without a time.
    fn listed(&self, object: &Object) -> Option<Listed> {
        Some(Listed {
            key: object.key()?.strip_prefix(&self.prefix)?.to_owned(),
            bytes: u64::try_from(object.size()?).ok()?,
            modified: at(object.last_modified()?)?,
        })
    }
}

impl Backend for S3 {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Request<'a, ()> {
        Box::pin(async move {
            let timeouts = self.timeouts.overriding(body.len());
            self.client
                .put_object()
                .bucket(&self.bucket)
                .key(self.full(key))
                .set_checksum_algorithm(self.checksum.clone())
                .body(ByteStream::from(body))
                .customize()
                .config_override(timeouts)
                .send()
                .await
                .map_err(failed("put", None))?;
            Ok(())
        })
    }

    fn upload<'a>(
        &'a self,
        key: &'a str,
        source: &'a mut Source<'_>,
        uploading: Uploading<'a>,
    ) -> Request<'a, ()> {
        Box::pin(self.send(key, source, uploading))
    }

    /// Reads the whole range, in at most three attempts that include the body. A connection that breaks within the body
    /// is the usual failure here, and the SDK does not retry it.
    fn range<'a>(&'a self, key: &'a str, range: Range<u64>) -> Request<'a, Bytes> {
        Box::pin(async move {
            let timeouts = self.timeouts.with_bytes(range.end - range.start);
            let attempts = async {
                let mut attempt = 1;
                loop {
                    let error = match timeout(timeouts.attempt, self.range_once(key, &range)).await
                    {
                        Ok(Ok(body)) => return Ok(body),
                        Ok(Err(error)) => error,
                        Err(elapsed) => Error::unavailable("get")(elapsed),
                    };
                    if attempt == ATTEMPTS_MAX || !error.is_retryable() {
                        return Err(error);
                    }
                    let pause = BACKOFF * 2_u32.pow(attempt - 1);
                    tokio::time::sleep(pause.mul_f64(rand::random())).await;
                    attempt += 1;
                }
            };
            timeout(timeouts.overall, attempts)
                .await
                .map_err(Error::unavailable("get"))?
        })
    }

    fn stream<'a>(&'a self, key: &'a str, range: Range<u64>) -> Request<'a, Pieces> {
        Box::pin(async move { self.get(key, &range, None).await })
    }

    fn delete<'a>(&'a self, keys: &'a [String]) -> Request<'a, ()> {
        Box::pin(async move {
            let action = "delete";
            let mut delete = Delete::builder().quiet(true);
            for key in keys {
                let object = ObjectIdentifier::builder().key(self.full(key)).build();
                delete = delete.objects(object.map_err(Error::unavailable(action))?);
            }
            let response = self
                .client
                .delete_objects()
                .bucket(&self.bucket)
                .delete(delete.build().map_err(Error::unavailable(action))?)
                .send()
                .await
                .map_err(failed(action, None))?;
            // A 200 response can list keys that were refused. S3 does not list missing keys among them; other stores do.
            let refused = response
                .errors()
                .iter()
                .find(|error| error.code() != Some("NoSuchKey"));
            match refused {
                None => Ok(()),
                Some(error) if error.code() == Some("AccessDenied") => Err(Error::Refused {
                    action,
                    code: "AccessDenied".to_owned(),
                    says: error.message().unwrap_or_default().to_owned(),
                    source: format!("{error:?}").into(),
                }),
                Some(error) => Err(Error::unavailable(action)(format!("{error:?}"))),
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Request<'a, Vec<Listed>> {
        Box::pin(async move {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(self.full(prefix))
                .set_start_after(after.map(|after| self.full(after)))
                .send()
                .await
                .map_err(failed("list", None))?;
            let listed = page.contents().iter();
            Ok(listed.filter_map(|object| self.listed(object)).collect())
        })
    }

    fn sweep_uploads<'a>(&'a self, prefix: &'a str, before: OffsetDateTime) -> Request<'a, usize> {
        Box::pin(self.abort_begun(prefix, before))
    }

    /// Lists one object: the cheapest request whose response names what is wrong. A HEAD response has no body.
    fn check(&self) -> Request<'_, ()> {
        Box::pin(async move {
            let request = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(&self.prefix)
                .max_keys(1)
                .send();
            timeout(CHECK_WAIT, request)
                .await
                .map_err(Error::unavailable("check"))?
                .map_err(failed("check", None))?;
            Ok(())
        })
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.aborts.close();
            self.aborts.wait().await;
        })
    }
}

/// The body of a response, after a check that it begins at the start of the range: a server that ignores the range
/// would return the right number of wrong bytes.
fn pieces(response: GetObjectOutput, range: &Range<u64>) -> Result<Pieces, Error> {
    let begins = format!("bytes {}-", range.start);
    if !response
        .content_range()
        .is_some_and(|given| given.starts_with(&begins))
    {
        let given = format!("response for range {:?}", response.content_range());
        return Err(Error::unavailable("get")(given));
    }
    Ok(Box::pin(try_unfold(response.body, |mut body| async move {
        let piece = body.try_next().await;
        let piece = piece.map_err(Error::unavailable("reading a body"))?;
        Ok(piece.map(|piece| (piece, body)))
    })))
}

fn at(time: &DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos()).ok()
}
