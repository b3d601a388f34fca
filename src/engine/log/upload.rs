//! Uploads of publishes. A body or batch above the hot limit is written to object storage first, and then only its
//! metadata to the database. The row of the object is inserted before the upload begins, so that the duty `collect`
//! finds what a crash leaves behind. An upload belongs to the era in which it began: in another one the row of the object
//! may be lost, so no block may refer to it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::blob::{self, Blob};
use crate::clock::Clock;
use crate::engine::error::Error;
use crate::engine::log::payload::{Records, streamed_measure};
use crate::engine::meter::measure::Measure;
use crate::store::installation::Installation;
use crate::store::turn::{NewBlock, NewPlace};
use crate::store::{self, Era, LaneId, Session, Store, TenantId};

/// Largest upload: the head of a streamed payload and a body of the largest size.
const UPLOAD_BYTES_MAX: u64 = api::limits::RAW_BODY_BYTES_MAX + (64 << 10);

/// An object whose upload is finished, and that no block refers to yet.
#[derive(Debug, Clone, Copy)]
pub struct Uploaded {
    object_id: i64,
    bytes: u64,
    /// The era that its payload has recorded.
    era: Era,
}

impl Uploaded {
    /// The object as the place of a new block's payload.
    fn place(self) -> NewPlace {
        NewPlace::Object {
            object_id: self.object_id,
            bytes: self.bytes.cast_signed(),
        }
    }

    /// A new block of these messages whose payload is the object.
    pub fn block(self, lane: LaneId, measure: Measure) -> NewBlock {
        NewBlock {
            lane,
            era: self.era,
            count: i32::try_from(measure.messages).unwrap_or(i32::MAX),
            compressed: false,
            place: self.place(),
            used: measure.into(),
        }
    }

    /// Whether a block of this era may refer to it.
    #[must_use]
    pub fn is_of(self, era: Era) -> bool {
        self.era == era
    }

    /// The measure of its one message, when the object was streamed.
    pub fn streamed_measure(self) -> Measure {
        streamed_measure(self.bytes, self.era)
    }
}

/// Writes payloads into objects, one object each.
#[derive(Debug)]
pub struct Uploads {
    /// The database.
    pub store: Store,
    /// Object storage.
    pub blob: Arc<Blob>,
    /// Source of the parameter `$now` of statements.
    pub clock: Clock,
    /// The installation, which names the objects.
    pub installation: Installation,
}

impl Uploads {
    /// Streams a payload of the present era into an object. It may wait behind the uploads of slow clients.
    pub async fn upload(
        &self,
        tenant: TenantId,
        era: Era,
        payload: BoxStream<'static, Result<Bytes, Error>>,
    ) -> Result<Uploaded, Error> {
        let (key, object_id) = self.new_object(era).await?;
        let bytes = self
            .blob
            .upload(tenant.get(), &key, payload, UPLOAD_BYTES_MAX)
            .await
            .map_err(upload_error)?;
        self.finish_object(object_id, era, bytes).await
    }

    /// Writes messages that are in memory already into an object, without waiting for the slow clients of
    /// [`Uploads::upload`].
    pub async fn put(&self, records: &Records) -> Result<Uploaded, Error> {
        let era = self.store.era();
        let payload = records.to_payload(era);
        let (key, object_id) = self.new_object(era).await?;
        let bytes = payload.len() as u64;
        self.blob.put(&key, payload.into()).await?;
        self.finish_object(object_id, era, bytes).await
    }

    async fn new_object(&self, era: Era) -> Result<(String, i64), Error> {
        let key = self.installation.object_key("body");
        let mut session = self.session(era).await?;
        let object_id = store::object::insert(&mut session, &key, self.clock.now()).await?;
        Ok((key, object_id))
    }

    async fn finish_object(&self, object_id: i64, era: Era, bytes: u64) -> Result<Uploaded, Error> {
        let mut session = self.session(era).await?;
        let now = self.clock.now();
        if !store::object::finish(&mut session, object_id, bytes.cast_signed(), now).await? {
            // It took longer than the grace of the duty `collect`, which may delete the object at any time from now on.
            tracing::warn!(object_id, bytes, "an upload took too long and was given up");
            return Err(Error::Unavailable("object storage"));
        }
        Ok(Uploaded {
            object_id,
            bytes,
            era,
        })
    }

    /// A session of this era.
    async fn session(&self, era: Era) -> Result<Session, Error> {
        let session = self.store.session().await?;
        if session.era() == era {
            Ok(session)
        } else {
            Err(store::Error::OtherHistory.into())
        }
    }
}

/// Converts an error of object storage. Errors of the body's stream are returned unchanged.
fn upload_error(error: blob::Error) -> Error {
    match error {
        blob::Error::Source(source) => match source.downcast::<Error>() {
            Ok(own) => *own,
            Err(_) => Error::BodyBroken,
        },
        blob::Error::SourceStalled { .. } => Error::BodyStalled,
        blob::Error::TooLarge { .. } => Error::TooLarge {
            what: "the body",
            max: api::limits::RAW_BODY_BYTES_MAX,
        },
        other @ (blob::Error::NotFound { .. }
        | blob::Error::InvalidKey { .. }
        | blob::Error::Truncated { .. }
        | blob::Error::TakerStalled { .. }
        | blob::Error::Busy { .. }
        | blob::Error::Refused { .. }
        | blob::Error::Unavailable { .. }) => other.into(),
    }
}
