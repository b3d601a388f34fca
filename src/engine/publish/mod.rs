//! Publish: messages join the next turn of their topic's loop, and the publish returns when the turn has committed
//! (I1). A body or batch above the hot limit is written to object storage first. `draft` is the input, `idempotent`
//! handles publishes with keys, `expire_dedup` truncates old keys.

pub mod draft;
pub mod expire_dedup;
pub mod idempotent;

use api::limits::BATCH_BYTES_MAX;
use api::message::Published;
use api::{MessageId, TopicName};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;

use crate::disk::Room;
use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::catalog::TopicEntry;
use crate::engine::error::Error;
use crate::engine::limit::Capacity;
use crate::engine::log::block::message_id;
use crate::engine::log::payload::stream_head;
use crate::engine::meter::Metered;
use crate::engine::meter::measure::Measure;
use crate::engine::publish::draft::{Draft, Drafts, IdempotencyKey, PublishRoute, Streamed};
use crate::engine::turn::{Content, Placed, Publish};
use crate::store::dedup::NewKey;
use crate::store::{Era, LaneId, Offset};

impl Engine {
    /// Publishes messages; one result per draft, in order. The outer error is for the whole request.
    ///
    /// # Errors
    /// When the topic does not exist, a limit stands against it, its key is in use or was used with another body, or
    /// the database or object storage is unavailable.
    pub async fn publish(
        &self,
        tenant: Tenant,
        topic: &TopicName,
        mut drafts: Drafts,
        key: Option<IdempotencyKey>,
    ) -> Result<Metered<Vec<Result<Published, Error>>>, Error> {
        self.check_room()?;
        let entry = self.catalog().topic(self.store(), tenant, topic).await?;
        if drafts.records.bytes() > BATCH_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "the batch",
                max: BATCH_BYTES_MAX as u64,
            });
        }
        let bytes = drafts.records.bytes();
        let admitted = self
            .quotas()
            .admit_publish(tenant, drafts.records.len(), bytes)?;
        drafts.capacity = admitted.capacity(drafts.capacity);
        let published = self.publish_admitted(&entry, drafts, key).await;
        match &published {
            Ok(_) => admitted.stored(bytes),
            Err(error) => admitted.failed(error),
        }
        published
    }

    /// Publishes messages that the quota has admitted.
    async fn publish_admitted(
        &self,
        entry: &TopicEntry,
        drafts: Drafts,
        key: Option<IdempotencyKey>,
    ) -> Result<Metered<Vec<Result<Published, Error>>>, Error> {
        let has_dedup_id = drafts
            .items
            .iter()
            .any(|item| matches!(item, Draft::Valid(Some(_))));
        if has_dedup_id || key.is_some() {
            return Box::pin(self.publish_keyed(entry, drafts, key)).await;
        }
        let Drafts {
            records,
            items,
            capacity,
        } = drafts;
        let mut next = message_id(self.lane_of(entry), Era::FIRST, Offset::START);
        let measure = records.measure();
        if !records.is_empty() {
            let content = if records.bytes() > self.hot_limit_bytes() {
                Content::Object(Box::pin(self.uploads().put(&records)).await?)
            } else {
                Content::Records(records)
            };
            next = self.commit_plain(entry, content, measure, capacity).await?;
        }
        let results = items.into_iter().map(|item| match item {
            Draft::Refused(error) => Err(error),
            Draft::Valid(_) => {
                let id = next;
                next.offset += 1;
                Ok(Published {
                    id,
                    duplicate: false,
                })
            }
        });
        Ok(Metered {
            answer: results.collect(),
            units: measure.units,
        })
    }

    /// Publishes one message whose body is over the hot limit: the body streams to object storage, and its fingerprint
    /// is taken on the way. An error of the stream means that the client went away or sent too much.
    ///
    /// # Errors
    /// As [`Engine::publish`], and the errors of the stream.
    pub async fn publish_stream(
        &self,
        tenant: Tenant,
        topic: &TopicName,
        publish: Streamed<'_>,
        body: BoxStream<'static, Result<Bytes, Error>>,
    ) -> Result<Metered<Published>, Error> {
        self.check_room()?;
        let entry = self.catalog().topic(self.store(), tenant, topic).await?;
        let admitted = self.quotas().admit_publish(tenant, 1, 0)?;
        let room = self.inner.parts.room.clone();
        let body = body.map(move |piece| check(&room).and(piece)).boxed();
        let body = self.quotas().charged(&admitted, body);
        let era = self.store().era();
        let head = stream::iter([Ok(Bytes::from(stream_head(&publish.meta, era)))]);
        let capacity = admitted.capacity(publish.capacity);
        let Some(key) = publish.key else {
            let object = self
                .uploads()
                .upload(tenant.0, era, head.chain(body).boxed())
                .await?;
            let measure = object.streamed_measure();
            let id = self
                .commit_plain(&entry, Content::Object(object), measure, capacity)
                .await?;
            let answer = Published {
                id,
                duplicate: false,
            };
            return Ok(Metered {
                answer,
                units: measure.units,
            });
        };
        let (body, fingerprint) = idempotent::fingerprinted(body);
        let object = self
            .uploads()
            .upload(tenant.0, era, head.chain(body).boxed())
            .await?;
        let key = IdempotencyKey {
            route: PublishRoute::Single,
            key,
            fingerprint: fingerprint.finish(),
        };
        self.publish_keyed_object(&entry, object, capacity, key)
            .await
    }

    /// Refuses publishes while there is no room on the disk. Receives and settles go on, which makes room.
    fn check_room(&self) -> Result<(), Error> {
        check(&self.inner.parts.room)
    }

    /// Commits content without keys by the next turn. Returns the id of its first message.
    async fn commit_plain(
        &self,
        entry: &TopicEntry,
        content: Content,
        measure: Measure,
        capacity: Capacity,
    ) -> Result<MessageId, Error> {
        let lane = self.lane_of(entry);
        let commit = Commit {
            lane,
            content,
            measure,
            capacity,
            keys: Vec::new(),
        };
        match self.commit(entry, commit).await? {
            Placed::At(first) => Ok(first),
            Placed::Gone | Placed::Known(_) => Err(self.is_gone(entry)),
        }
    }

    /// Queues a publish for the next turn, and waits until the turn has committed.
    async fn commit(&self, entry: &TopicEntry, commit: Commit) -> Result<Placed, Error> {
        let (reply, placed) = oneshot::channel();
        let topic_id = entry.row.topic_id;
        self.turns().queue(topic_id).publish(Publish {
            tenant: entry.row.tenant_id,
            capacity: commit.capacity,
            topic_id,
            lane: commit.lane,
            content: commit.content,
            measure: commit.measure,
            keys: commit.keys,
            is_free: false,
            reply,
        })?;
        placed.await.map_err(|_| Error::Unavailable("the node"))?
    }

    /// The error of a publish to a topic that another node has deleted: the catalog of this node is old.
    fn is_gone(&self, entry: &TopicEntry) -> Error {
        self.catalog().invalidate();
        Error::not_found("topic", &entry.name)
    }

    /// The lane that this node publishes to.
    fn lane_of(&self, entry: &TopicEntry) -> LaneId {
        let lanes = &entry.lanes;
        let home = usize::try_from(self.node().as_u128() % 65_536).unwrap_or(0);
        let lane = lanes.get(home % lanes.len().max(1)).copied();
        lane.unwrap_or(LaneId::UNASSIGNED)
    }
}

fn check(room: &Room) -> Result<(), Error> {
    if room.is_low() {
        return Err(Error::DiskFull);
    }
    Ok(())
}

/// What a publish commits.
struct Commit {
    lane: LaneId,
    content: Content,
    measure: Measure,
    capacity: Capacity,
    keys: Vec<NewKey>,
}
