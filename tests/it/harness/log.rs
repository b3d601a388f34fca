//! A database with topics, subscriptions and lanes, written to as turns do, below HTTP: for tests of what happens to
//! blocks afterwards. Remembers every payload, to compare it with what can be read later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cursus::blob::Blob;
use cursus::clock::Clock;
use cursus::engine::duty::{Context, Duty, DutyError};
use cursus::engine::lifecycle::expire::{Expire, ExpireSettings};
use cursus::engine::lifecycle::offload::{Offload, OffloadSettings};
use cursus::engine::lifecycle::rotate::{Rotate, RotateSettings};
use cursus::store::turn::{
    Claim, LeaseAction, LeaseChange, Leased, NewBlock, NewPlace, TurnInput, Used,
};
use cursus::store::{
    Era, LaneId, Offset, Store, SubscriptionId, TenantId, TopicId, block, cursor, hot_payload,
    installation, lane, lane_meter, object, topic, turn,
};
use cursus::turnstile::SERVICE;
use sqlx::{AssertSqlSafe, PgConnection};
use time::macros::datetime;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::invariants::check_invariants;
use super::postgres::Database;

pub(crate) struct Log {
    pub(crate) database: Database,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) expire: Expire,
    pub(crate) sql: PgConnection,
    /// All payloads ever published, by lane and first offset.
    pub(crate) payloads: BTreeMap<(LaneId, Offset), Vec<u8>>,
}

/// Adds a second lane to the topic `t`.
pub(crate) const SECOND_LANE: &str = "WITH second AS (
     INSERT INTO lane (tenant_id, topic_id, number, start_offset) SELECT tenant_id, topic_id, 1, 0 FROM topic WHERE name = 't'
     RETURNING lane_id, tenant_id, topic_id
 ), meter AS (
     INSERT INTO lane_meter (lane_id, tenant_id, topic, began_offset, metered_offset, sampled_at, posted_at)
     SELECT lane_id, tenant_id, 't', 0, 0, now(), now() FROM second
 )
 UPDATE topic t SET lanes = t.lanes || s.lane_id FROM second s WHERE t.topic_id = s.topic_id";

/// Settings under which everything is due at once.
pub(crate) const PROMPT: OffloadSettings = OffloadSettings {
    object_bytes: 1024 * 1024,
    hot_window: Duration::ZERO,
};
/// A slot is left whatever it holds.
pub(crate) const AT_ONCE: RotateSettings = RotateSettings {
    slot_bytes: 1,
    slot_window: Duration::ZERO,
};
/// What is consumed is kept for no time.
pub(crate) const EXPIRE_AT_ONCE: ExpireSettings = ExpireSettings {
    consumed_age: Duration::ZERO,
};

impl Log {
    pub(crate) async fn new() -> Self {
        let database = Database::new().await;
        let store = database.store();
        let clock = Clock::manual(datetime!(2030-01-01 00:00 UTC));
        let mut session = store.session().await.unwrap();
        installation::ensure(&mut session, &[7; 32], clock.now())
            .await
            .unwrap();
        let sql = database.connect().await;
        Self {
            database,
            store,
            clock,
            expire: Expire::new(EXPIRE_AT_ONCE),
            sql,
            payloads: BTreeMap::new(),
        }
    }

    /// Over the database of a fleet.
    pub(crate) async fn over(fleet: &Fleet) -> Self {
        let database = fleet.database.clone();
        Self {
            store: database.store(),
            clock: fleet.clock.clone(),
            expire: Expire::new(EXPIRE_AT_ONCE),
            sql: database.connect().await,
            payloads: BTreeMap::new(),
            database,
        }
    }

    /// A topic with one lane; returns both.
    pub(crate) async fn topic(
        &mut self,
        name: &str,
        keep_consumed: bool,
        retention_seconds: i32,
    ) -> (TopicId, LaneId) {
        let topic = self
            .one(&format!(
                "INSERT INTO topic (tenant_id, name, retention_seconds, keep_consumed, dedup_window_seconds, created_at, updated_at)
                 VALUES ((SELECT min(tenant_id) FROM tenant WHERE tenant_id > 0), '{name}', {retention_seconds}, {keep_consumed}, 60, now(), now())
                 RETURNING topic_id"
            ))
            .await;
        let topic = TopicId::new(topic);
        let mut session = self.store.session().await.unwrap();
        let lane = lane::insert(&mut session, TenantId::new(1), topic, 0)
            .await
            .unwrap();
        let now = self.clock.now();
        lane_meter::begin(&mut session, lane, name, now)
            .await
            .unwrap();
        topic::add_lane(&mut session, topic, lane).await.unwrap();
        (topic, lane)
    }

    /// A subscription that begins at the oldest message.
    pub(crate) async fn subscription(&mut self, name: &str, topic: TopicId) -> SubscriptionId {
        let subscription = self
            .one(&format!(
                "INSERT INTO subscription (tenant_id, topic_id, name, visibility_seconds, max_attempts, max_in_flight, created_at, updated_at)
                 VALUES ((SELECT min(tenant_id) FROM tenant WHERE tenant_id > 0), {topic}, '{name}', 30, 5, 1000, now(), now()) RETURNING subscription_id"
            ))
            .await;
        let subscription = SubscriptionId::new(subscription);
        let mut session = self.store.session().await.unwrap();
        cursor::begin(&mut session, subscription, topic, true)
            .await
            .unwrap();
        subscription
    }

    /// One number from the database.
    pub(crate) async fn one(&mut self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut self.sql)
            .await
            .unwrap()
    }

    /// Any other statement.
    pub(crate) async fn run(&mut self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&mut self.sql)
            .await
            .unwrap();
    }

    /// The current slot.
    pub(crate) async fn slot(&self) -> i16 {
        let mut session = self.store.session().await.unwrap();
        installation::get(&mut session)
            .await
            .unwrap()
            .unwrap()
            .hot_slot
    }

    /// Publishes blocks of `count` messages and `bytes` of payload, one per lane, into the current slot.
    pub(crate) async fn publish(&mut self, lanes: &[LaneId], count: i32, bytes: usize) {
        let slot = self.slot().await;
        self.publish_into(slot, lanes, count, bytes).await;
    }

    /// The same into a given slot, as a node does that lags behind.
    pub(crate) async fn publish_into(
        &mut self,
        slot: i16,
        lanes: &[LaneId],
        count: i32,
        bytes: usize,
    ) {
        let payloads: Vec<Vec<u8>> = lanes.iter().map(|_| noise(bytes)).collect();
        let blocks = lanes
            .iter()
            .zip(&payloads)
            .map(|(lane, payload)| hot(*lane, count, payload.clone()))
            .collect();
        let mut session = self.store.session().await.unwrap();
        let input = TurnInput {
            blocks,
            slot,
            ..TurnInput::default()
        };
        let output = turn::run(&mut session, self.clock.now(), &input)
            .await
            .unwrap();
        for ((lane, first), payload) in lanes.iter().zip(output.first_offsets).zip(payloads) {
            self.payloads
                .insert((*lane, first.expect("an open lane")), payload);
        }
    }

    /// Hands out up to `wanted` messages.
    pub(crate) async fn claim(
        &self,
        lane: LaneId,
        subscription: SubscriptionId,
        wanted: u32,
    ) -> Vec<Leased> {
        let claims = vec![Claim {
            lane,
            subscription,
            wanted,
            fresh: wanted,
            visibility_seconds: 30,
            max_attempts: None,
            scan: None,
        }];
        let mut session = self.store.session().await.unwrap();
        let input = TurnInput {
            claims,
            ..TurnInput::default()
        };
        turn::run(&mut session, self.clock.now(), &input)
            .await
            .unwrap()
            .leased
    }

    /// Acknowledges messages of a lease.
    pub(crate) async fn settle(&self, lease: &Leased, mask: u64) {
        let Leased {
            lane,
            subscription,
            lease,
            ..
        } = *lease;
        let changes = vec![LeaseChange {
            lane,
            subscription,
            lease,
            action: LeaseAction::Settle,
            mask,
            max_attempts: None,
        }];
        let mut session = self.store.session().await.unwrap();
        let input = TurnInput {
            changes,
            ..TurnInput::default()
        };
        turn::run(&mut session, self.clock.now(), &input)
            .await
            .unwrap();
    }

    /// Receives and acknowledges all that is there.
    pub(crate) async fn consume(&self, lane: LaneId, subscription: SubscriptionId) {
        loop {
            let leased = self.claim(lane, subscription, 1_000).await;
            if leased.is_empty() {
                break;
            }
            for lease in leased {
                self.settle(&lease, u64::MAX).await;
            }
        }
    }

    /// What duties work with.
    pub(crate) fn context(&self) -> Context {
        Context {
            store: self.store.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Runs a duty once; returns what it counts.
    pub(crate) async fn run_duty(&self, duty: &mut impl Duty) -> Result<u64, DutyError> {
        let stop = CancellationToken::new();
        Ok(duty.run(&self.context(), &stop).await?.count)
    }

    /// Moves to the next slot whatever the current one holds.
    pub(crate) async fn rotate(&self) {
        let moved = self.run_duty(&mut Rotate::new(AT_ONCE)).await.unwrap();
        assert_eq!(moved, 1, "a slot is free");
    }

    /// Offloads what is due; returns how many blocks.
    pub(crate) async fn offload(&self, blob: &Arc<Blob>) -> u64 {
        self.try_offload(blob).await.unwrap()
    }

    pub(crate) async fn try_offload(&self, blob: &Arc<Blob>) -> Result<u64, DutyError> {
        self.run_duty(&mut Offload::new(blob.clone(), PROMPT)).await
    }

    /// One round of retention; returns how many blocks went.
    pub(crate) async fn expire(&mut self) -> u64 {
        let context = self.context();
        let done = self.expire.run(&context, &CancellationToken::new()).await;
        done.unwrap().count
    }

    /// Bytes of each slot.
    pub(crate) async fn sizes(&self) -> Vec<i64> {
        let mut session = self.store.session().await.unwrap();
        hot_payload::sizes(&mut session).await.unwrap().to_vec()
    }

    /// Blocks of a lane, by first offset and end.
    pub(crate) async fn blocks(&self, lane: LaneId) -> Vec<(i64, i64)> {
        let mut session = self.store.session().await.unwrap();
        let blocks = block::covering(&mut session, lane, Offset::START, Offset::MAX, 100_000)
            .await
            .unwrap();
        blocks
            .iter()
            .map(|b| {
                (
                    b.first_offset.get(),
                    b.first_offset.plus(i64::from(b.count)).get(),
                )
            })
            .collect()
    }

    /// Reads every block there is, wherever it is, and compares it with what was published; then checks the invariants.
    pub(crate) async fn check(&mut self, blob: &Blob) {
        let lanes: Vec<LaneId> = sqlx::query_scalar("SELECT lane_id FROM lane")
            .fetch_all(&mut self.sql)
            .await
            .unwrap();
        let mut session = self.store.session().await.unwrap();
        for lane in lanes {
            for found in block::covering(&mut session, lane, Offset::START, Offset::MAX, 100_000)
                .await
                .unwrap()
            {
                let payload = match (found.slot, found.object_id) {
                    (Some(slot), None) => {
                        let mut read =
                            hot_payload::read(&mut session, slot, lane, &[found.first_offset])
                                .await
                                .unwrap();
                        read.pop().expect("a hot payload").1
                    }
                    (None, Some(object)) => {
                        let keys = object::keys(&mut session, &[object]).await.unwrap();
                        let key = &keys[0].key;
                        let start = found.object_offset.unwrap().cast_unsigned();
                        blob.range(SERVICE, key, start..start + found.bytes.cast_unsigned())
                            .await
                            .unwrap()
                            .to_vec()
                    }
                    place => panic!("a place {place:?}"),
                };
                assert!(
                    payload == self.payloads[&(lane, found.first_offset)],
                    "payload of {lane} {}",
                    found.first_offset
                );
            }
        }
        drop(session);
        check_invariants(&mut self.sql).await;
    }
}

pub(crate) fn hot(lane: LaneId, count: i32, payload: Vec<u8>) -> NewBlock {
    let used = Used {
        units: count,
        elastic_units: 0,
        message_bytes: i64::try_from(payload.len()).unwrap(),
    };
    NewBlock {
        lane,
        era: Era::FIRST,
        count,
        compressed: false,
        place: NewPlace::Hot(payload.into()),
        used,
    }
}

/// Bytes that cannot be taken for others.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut payload = vec![0; bytes];
    rand::fill(&mut payload[..]);
    payload
}

/// Objects in a folder.
pub(crate) async fn folder(scratch: &super::scratch::Scratch) -> Arc<Blob> {
    Arc::new(Blob::directory(scratch.path()).await.unwrap())
}
