//! Bodies streamed from object storage to clients that do not read.

use std::time::Duration;

use bytes::Bytes;
use cursus::blob::Blob;
use futures_util::{FutureExt, TryStreamExt};

use super::blob::pattern;
use crate::harness::scratch::Scratch;
use crate::harness::seaweed::Seaweed;

const MIB: usize = 1 << 20;
const TENANT: i64 = 1;
const OTHER: i64 = 2;
/// Slots of one tenant.
const OF_ONE: usize = 48;

#[tokio::test]
async fn clients_that_do_not_read_lend_their_slots_to_one_that_does_and_go_on_later() {
    let scratch = Scratch::new("streams");
    let blob = Blob::directory(scratch.path()).await.unwrap();
    let body = pattern(4 * MIB);
    blob.put("there", body.clone()).await.unwrap();
    let bytes = body.len() as u64;
    let mut unread = Vec::new();
    for _ in 0..OF_ONE {
        unread.push(blob.stream(TENANT, "there", 5..bytes).await.unwrap());
    }
    let reads = async {
        let stream = blob.stream(TENANT, "there", 0..bytes).await.unwrap();
        stream.try_collect::<Vec<Bytes>>().await.unwrap()
    };
    // Far below the time that a client may pause.
    let read = tokio::time::timeout(Duration::from_secs(5), reads).await;
    assert_eq!(read.unwrap().concat(), body);
    for stream in unread {
        let read: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(read.concat(), body[5..]);
    }
}

#[tokio::test]
async fn a_tenant_of_slow_clients_leaves_slots_to_others() {
    let seaweed = Seaweed::shared().await;
    let blob = Blob::s3(seaweed.settings()).await;
    let bytes = 4 * MIB as u64;
    blob.put("there", pattern(4 * MIB)).await.unwrap();

    let mut held = Vec::new();
    for _ in 0..OF_ONE {
        held.push(blob.stream(TENANT, "there", 0..bytes).await.unwrap());
    }
    let one_more = blob.stream(TENANT, "there", 0..bytes).now_or_never();
    assert!(one_more.is_none(), "it waits for one of its own");
    let mut others = Vec::new();
    for _ in OF_ONE..64 {
        let other = blob.stream(OTHER, "there", 0..bytes);
        let other = tokio::time::timeout(Duration::from_secs(5), other).await;
        others.push(other.unwrap().unwrap());
    }
    drop(held);
    let again = blob.stream(TENANT, "there", 0..bytes).await.unwrap();
    let got: Vec<Bytes> = again.try_collect().await.unwrap();
    assert_eq!(got.concat(), pattern(4 * MIB));
}
