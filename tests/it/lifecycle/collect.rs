//! Garbage in object storage: what nothing refers to goes, in time and not before; what is referred to never.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cursus::blob::Blob;
use cursus::engine::lifecycle::collect::{Collect, CollectSettings};
use cursus::store::{installation, object};
use time::macros::datetime;

use crate::harness::log::{Log, folder};
use crate::harness::scratch::Scratch;
use crate::harness::seaweed::Seaweed;

const HOUR: Duration = Duration::from_secs(3_600);

async fn collect(log: &Log, blob: &Arc<Blob>) -> u64 {
    let mut collect = Collect::new(blob.clone(), CollectSettings::default());
    log.run_duty(&mut collect).await.unwrap()
}

async fn keys(blob: &Blob) -> usize {
    blob.list("", None).await.unwrap().len()
}

async fn collects(blob: &Arc<Blob>) {
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    let (_, keeps) = log.topic("keeps", true, 7_200 * 3).await;
    // One object for both, one that only the first topic is in.
    log.publish(&[lane, keeps], 1, 500_000).await;
    log.publish(&[lane], 1, 1_200_000).await;
    log.rotate().await;
    assert_eq!(log.offload(blob).await, 3);
    // A node that died between PUT and commit, and one that died before the PUT.
    let mut session = log.store.session().await.unwrap();
    let installation = installation::get(&mut session).await.unwrap().unwrap();
    let (crashed, never) = (
        installation.object_key("pack"),
        installation.object_key("body"),
    );
    let id = object::insert(&mut session, &crashed, log.clock.now())
        .await
        .unwrap();
    object::insert(&mut session, &never, log.clock.now())
        .await
        .unwrap();
    blob.put(&crashed, Bytes::from_static(b"x")).await.unwrap();
    assert_eq!((collect(&log, blob).await, keys(blob).await), (0, 3));

    log.clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(log.expire().await, 2);
    assert_eq!(
        (collect(&log, blob).await, keys(blob).await),
        (0, 3),
        "marked only"
    );
    assert!(
        !object::finish(&mut session, id, 1, log.clock.now())
            .await
            .unwrap(),
        "an upload that ends now is too late"
    );
    log.check(blob).await;
    log.clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!((collect(&log, blob).await, keys(blob).await), (3, 1));
    assert_eq!(log.one("SELECT count(*) FROM object").await, 1);
    log.check(blob).await;

    // An object that no row knows, as old as the storage reports; and one that is not ours.
    blob.put(&installation.object_key("pack"), Bytes::from_static(b"x"))
        .await
        .unwrap();
    blob.put("other/pack/1", Bytes::from_static(b"x"))
        .await
        .unwrap();
    assert_eq!(
        collect(&log, blob).await,
        1,
        "the clock of the test is years ahead of the storage's"
    );
    assert_eq!(keys(blob).await, 2);
    log.check(blob).await;
}

#[tokio::test]
async fn unreferenced_crashed_and_unknown_objects_are_deleted_and_no_others() {
    let scratch = Scratch::new("collect");
    collects(&folder(&scratch).await).await;
    let seaweed = Seaweed::shared().await;
    collects(&Arc::new(Blob::s3(seaweed.settings()).await)).await;
}

#[tokio::test]
async fn the_grace_of_an_object_counts_from_the_end_of_its_upload() {
    let scratch = Scratch::new("grace");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let mut session = log.store.session().await.unwrap();
    let id = object::insert(&mut session, "slow", log.clock.now())
        .await
        .unwrap();
    log.clock.advance(HOUR - Duration::from_secs(1));
    assert!(
        object::finish(&mut session, id, 1, log.clock.now())
            .await
            .unwrap()
    );
    let marked = "SELECT count(*) FROM object WHERE deleted_at IS NOT NULL";
    log.clock.advance(HOUR - Duration::from_secs(1));
    collect(&log, &blob).await;
    assert_eq!(log.one(marked).await, 0, "its publish may be under way");
    log.clock.advance(Duration::from_secs(2));
    collect(&log, &blob).await;
    assert_eq!(log.one(marked).await, 1);
}

#[tokio::test]
async fn an_unknown_object_that_is_young_stays() {
    let scratch = Scratch::new("young");
    let blob = folder(&scratch).await;
    let log = Log::new().await;
    let mut session = log.store.session().await.unwrap();
    let key = installation::get(&mut session)
        .await
        .unwrap()
        .unwrap()
        .object_key("pack");
    blob.put(&key, Bytes::from_static(b"x")).await.unwrap();
    let settings = CollectSettings::default();
    let modified = blob.list("", None).await.unwrap()[0].modified;
    assert!(modified < datetime!(2030-01-01 00:00 UTC));
    let asked = [key.clone()];
    let young = object::unknown(
        &mut session,
        &asked,
        &[modified],
        settings.unknown_age,
        Some(modified + 23 * HOUR),
    )
    .await;
    assert_eq!(young.unwrap(), [""; 0]);
    let old = object::unknown(
        &mut session,
        &asked,
        &[modified],
        settings.unknown_age,
        Some(modified + 25 * HOUR),
    )
    .await;
    assert_eq!(old.unwrap(), asked);
}
