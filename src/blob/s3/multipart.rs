//! Uploads of unknown length, in parts. The object appears only with the last request. Until then its parts are
//! invisible and cost money, so every outcome but success aborts the upload, and the sweep finds what a crash left.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, MultipartUpload};
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::runtime::Handle;

use super::super::backend::{Backend, Uploading};
use super::super::metrics::Op;
use super::super::source::Source;
use super::super::{BoxError, Error};
use super::error::failed;
use super::{S3, at};

/// Bytes per part, and so the memory of an upload. S3 requires at least 5 MiB and at most 10,000 parts.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Pages of 1,000 unfinished uploads that one sweep reads; the next sweep continues.
const SWEEP_PAGES_MAX: usize = 10;

impl S3 {
    /// Sends a body in one request if it is short, or else in parts. Slots are held per request and not per upload, so
    /// that slow clients do not hold slots of others.
    pub(super) async fn send(
        &self,
        key: &str,
        source: &mut Source<'_>,
        uploading: Uploading<'_>,
    ) -> Result<(), Error> {
        let Uploading {
            writes,
            owner,
            metrics,
        } = uploading;
        let first = source.part(PART_BYTES).await?;
        if first.len() < PART_BYTES {
            let _slot = writes.slot(owner).await?;
            return metrics.count(Op::Put, self.put(key, first)).await;
        }
        let begun = metrics.count(Op::Upload, self.begin(key)).await?;
        let sent = async {
            let mut parts = Vec::new();
            let mut body = first;
            while !body.is_empty() {
                let slot = writes.slot(owner).await?;
                let number = i32::try_from(parts.len() + 1).unwrap_or(i32::MAX);
                let part = begun.part(number, body);
                parts.push(metrics.count(Op::UploadPart, part).await?);
                drop(slot);
                body = source.part(PART_BYTES).await?;
            }
            let _slot = writes.slot(owner).await?;
            metrics.count(Op::Upload, begun.complete(parts)).await
        };
        match sent.await {
            Ok(()) => {
                begun.disarm();
                Ok(())
            }
            // Dropping `begun` aborts it in the background, so the client gets its error without waiting for the abort.
            Err(error) => Err(error),
        }
    }

    async fn begin(&self, key: &str) -> Result<Begun, Error> {
        let action = "begin of an upload";
        let key = self.full(key);
        let response = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(&key)
            .set_checksum_algorithm(self.checksum.clone())
            .send()
            .await
            .map_err(failed(action, None))?;
        let id = response.upload_id.ok_or("a response without upload id");
        Ok(Begun {
            s3: self.clone(),
            key,
            id: id.map_err(Error::unavailable(action))?,
            is_armed: true,
        })
    }

    /// Aborts uploads that began before `before`, and returns their number.
    pub(super) async fn abort_begun(
        &self,
        prefix: &str,
        before: OffsetDateTime,
    ) -> Result<usize, Error> {
        let prefix = self.full(prefix);
        let (mut swept, mut markers) = (0, (None, None));
        for _ in 0..SWEEP_PAGES_MAX {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(&prefix)
                .set_key_marker(markers.0)
                .set_upload_id_marker(markers.1)
                .send()
                .await
                .map_err(failed("list of uploads", None))?;
            for upload in page.uploads() {
                if let Some((key, id)) = abandoned(upload, &prefix, before) {
                    self.abort(key, id).await?;
                    swept += 1;
                }
            }
            if page.is_truncated() != Some(true) {
                break;
            }
            markers = (page.next_key_marker, page.next_upload_id_marker);
        }
        Ok(swept)
    }

    /// Aborts an upload; succeeds if it no longer exists.
    async fn abort(&self, key: &str, id: &str) -> Result<(), Error> {
        let response = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(id)
            .send()
            .await;
        match response {
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_no_such_upload()) =>
            {
                Ok(())
            }
            response => {
                response.map_err(failed("abort of an upload", None))?;
                Ok(())
            }
        }
    }
}

/// Key and id of an upload that began before `before`. The prefix is checked again, because not every server applies
/// it.
fn abandoned<'a>(
    upload: &'a MultipartUpload,
    prefix: &str,
    before: OffsetDateTime,
) -> Option<(&'a str, &'a str)> {
    let key = upload.key().filter(|key| key.starts_with(prefix))?;
    let is_old = at(upload.initiated()?)? < before;
    is_old.then_some((key, upload.upload_id()?))
}

/// A multipart upload that has begun. Dropping it before `disarm` aborts it in the background, on the tracker of
/// `drain`.
struct Begun {
    s3: S3,
    key: String,
    id: String,
    is_armed: bool,
}

impl Begun {
    async fn part(&self, number: i32, body: Bytes) -> Result<CompletedPart, Error> {
        let timeouts = self.s3.timeouts.overriding(body.len());
        let response = self
            .s3
            .client
            .upload_part()
            .bucket(&self.s3.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .part_number(number)
            .set_checksum_algorithm(self.s3.checksum.clone())
            .body(ByteStream::from(body))
            .customize()
            .config_override(timeouts)
            .send()
            .await
            .map_err(failed("part of an upload", None))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(response.e_tag)
            .set_checksum_crc32(response.checksum_crc32)
            .build())
    }

    async fn complete(&self, parts: Vec<CompletedPart>) -> Result<(), Error> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts));
        self.s3
            .client
            .complete_multipart_upload()
            .bucket(&self.s3.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .multipart_upload(parts.build())
            .send()
            .await
            .map_err(failed("end of an upload", None))?;
        Ok(())
    }

    fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_armed {
            return;
        }
        let (s3, key, id) = (self.s3.clone(), self.key.clone(), self.id.clone());
        let Ok(runtime) = Handle::try_current() else {
            return warn_left(&key, "the runtime has ended".into());
        };
        let abort = async move {
            if let Err(error) = s3.abort(&key, &id).await {
                warn_left(&key, error.into());
            }
        };
        drop(self.s3.aborts.spawn_on(abort, &runtime));
    }
}

fn warn_left(key: &str, error: BoxError) {
    tracing::warn!(
        key,
        error,
        "an unfinished upload stays until the next sweep"
    );
}
