//! Object storage: what both places promise alike, and what each does when it fails. Faults come from a proxy in front
//! of a real S3-protocol server, never from a mock.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cursus::blob::{Blob, BoxError, Error, Op};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::harness::proxy::{Mode, Proxy};
use crate::harness::scratch::Scratch;
use crate::harness::seaweed::Seaweed;

const MIB: usize = 1024 * 1024;
/// The tenant that asks.
const TENANT: i64 = 1;
const FOREVER: OffsetDateTime = datetime!(2100-01-01 00:00 UTC);

/// Bytes in which every position looks different from its neighbours, so that a wrong offset shows.
pub(super) fn pattern(bytes: usize) -> Bytes {
    let numbers = (0..bytes.div_ceil(4)).flat_map(|n| u32::try_from(n).unwrap().to_le_bytes());
    numbers.take(bytes).collect()
}

/// `body` in uneven pieces.
fn pieces(body: Bytes) -> BoxStream<'static, Result<Bytes, BoxError>> {
    let starts = (0..body.len()).step_by(300_007);
    stream::iter(starts.map(move |start| {
        let end = body.len().min(start + 300_007);
        Ok(body.slice(start..end))
    }))
    .boxed()
}

async fn keys(blob: &Blob) -> Vec<String> {
    let listed = blob.list("", None).await.unwrap();
    listed.into_iter().map(|object| object.key).collect()
}

async fn read(blob: &Blob, key: &str, bytes: usize) -> Result<Bytes, Error> {
    let body = blob.stream(TENANT, key, 0..bytes as u64).await?;
    let body: Vec<Bytes> = body.try_collect().await?;
    Ok(body.concat().into())
}

/// Polls an upload until `is_far` holds, then stops in the middle of it. The body never ends.
async fn half_upload(blob: &Blob, is_far: impl Fn() -> bool, is_crash: bool) {
    let endless = stream::repeat_with(|| Ok::<_, BoxError>(pattern(MIB)))
        .take(20)
        .chain(stream::pending());
    let mut upload = Box::pin(blob.upload(TENANT, "half", endless, u64::MAX));
    while !is_far() {
        let poll = tokio::time::timeout(Duration::from_millis(10), &mut upload);
        assert!(poll.await.is_err(), "an endless upload ended");
    }
    if is_crash {
        std::mem::forget(upload);
    }
}

async fn keeps_its_promises(blob: &Blob) {
    blob.check().await.unwrap();
    assert_eq!(keys(blob).await, [""; 0]);

    let body = pattern(MIB + 13);
    blob.put("packs/a", body.clone()).await.unwrap();
    blob.put("packs/b-empty", Bytes::new()).await.unwrap();
    blob.put("c", pattern(5)).await.unwrap();

    let len = body.len() as u64;
    assert_eq!(blob.range(TENANT, "packs/a", 0..len).await.unwrap(), body);
    let middle = blob.range(TENANT, "packs/a", 1_000..700_000).await.unwrap();
    assert_eq!(middle, body.slice(1_000..700_000));
    assert_eq!(
        blob.range(TENANT, "packs/a", 7..7).await.unwrap(),
        Bytes::new()
    );
    assert_eq!(read(blob, "packs/a", body.len()).await.unwrap(), body);

    for range in [0..len + 1, len..len + 1, len + 5..len + 9] {
        let error = blob
            .range(TENANT, "packs/a", range.clone())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
        let body = match blob.stream(TENANT, "packs/a", range).await {
            Ok(body) => body.try_collect::<Vec<_>>().await.map(drop),
            Err(error) => Err(error),
        };
        assert!(matches!(body, Err(Error::Truncated { .. })), "{body:?}");
    }
    let error = blob.range(TENANT, "none", 0..1).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound { key } if key == "none"));
    let error = read(blob, "none", 1).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }));

    let listed = blob.list("", None).await.unwrap();
    let names: Vec<_> = listed.iter().map(|l| (&*l.key, l.bytes)).collect();
    assert_eq!(names, [("c", 5), ("packs/a", len), ("packs/b-empty", 0)]);
    assert!(
        listed
            .iter()
            .all(|l| l.modified > datetime!(2024-01-01 00:00 UTC))
    );
    let page = blob.list("packs/", Some("packs/a")).await.unwrap();
    assert_eq!(page[0].key, "packs/b-empty");
    assert_eq!(blob.list("pa", None).await.unwrap().len(), 2);
    assert_eq!(blob.list("", Some("packs/b-empty")).await.unwrap(), []);

    blob.upload(TENANT, "small", pieces(pattern(MIB)), u64::MAX)
        .await
        .unwrap();
    assert_eq!(read(blob, "small", MIB).await.unwrap(), pattern(MIB));

    let all = ["packs/a", "packs/b-empty", "c", "small", "missing/one"];
    blob.delete(&all.map(str::to_owned)).await.unwrap();
    assert_eq!(keys(blob).await, [""; 0]);

    refuses_keys_that_lead_elsewhere(blob).await;
    streams_a_large_body(blob).await;
    leaves_nothing_of_a_failed_upload(blob).await;
}

async fn refuses_keys_that_lead_elsewhere(blob: &Blob) {
    for key in ["../x", "a/../../x", "/etc/x", ".unfinished/x", "a//x", ""] {
        let put = blob.put(key, Bytes::new()).await;
        assert!(matches!(put, Err(Error::InvalidKey { .. })), "{put:?}");
        let got = blob.range(TENANT, key, 0..1).await;
        assert!(matches!(got, Err(Error::InvalidKey { .. })), "{got:?}");
        let deleted = blob.delete(&[key.to_owned()]).await;
        assert!(matches!(deleted, Err(Error::InvalidKey { .. })));
    }
    assert!(blob.list("../", None).await.is_err());
}

async fn streams_a_large_body(blob: &Blob) {
    let body = pattern(20 * MIB + 3);
    let bytes = body.len() as u64;
    let uploaded = blob
        .upload(TENANT, "large", pieces(body.clone()), bytes)
        .await;
    assert_eq!(uploaded.unwrap(), bytes);
    assert_eq!(read(blob, "large", body.len()).await.unwrap(), body);
    let middle = blob
        .range(TENANT, "large", 8_000_000..9_000_000)
        .await
        .unwrap();
    assert_eq!(middle, body.slice(8_000_000..9_000_000));
    // Exactly two parts: nothing is left for a third.
    blob.upload(TENANT, "even", pieces(pattern(16 * MIB)), bytes)
        .await
        .unwrap();
    assert_eq!(
        read(blob, "even", 16 * MIB).await.unwrap(),
        pattern(16 * MIB)
    );
    blob.delete(&["large".to_owned(), "even".to_owned()])
        .await
        .unwrap();
}

async fn leaves_nothing_of_a_failed_upload(blob: &Blob) {
    for bytes in [MIB, 20 * MIB] {
        let gone = stream::once(async { Err::<Bytes, BoxError>("client went away".into()) });
        let body = pieces(pattern(bytes)).chain(gone);
        let error = blob.upload(TENANT, "x", body, u64::MAX).await.unwrap_err();
        assert!(matches!(&error, Error::Source(e) if e.to_string() == "client went away"));

        let limit = bytes as u64 - 1;
        let body = pieces(pattern(bytes));
        let error = blob.upload(TENANT, "x", body, limit).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: named } if named == limit));
    }
    assert_eq!(keys(blob).await, [""; 0]);
    // What was begun is aborted in the background.
    blob.drain().await;
    assert_eq!(blob.sweep_uploads("", FOREVER).await.unwrap(), 0);
}

#[tokio::test]
async fn a_directory_keeps_its_promises() {
    let folder = Scratch::new("blob");
    let blob = Blob::directory(folder.path()).await.unwrap();
    keeps_its_promises(&blob).await;
}

#[tokio::test]
async fn s3_keeps_its_promises() {
    let seaweed = Seaweed::shared().await;
    let blob = Blob::s3(seaweed.settings()).await;
    keeps_its_promises(&blob).await;
}

#[tokio::test]
async fn a_listing_goes_on_page_by_page() {
    let folder = Scratch::new("blob");
    let blob = Blob::directory(folder.path()).await.unwrap();
    for n in 0..1_003 {
        blob.put(&format!("p{}/{n:04}", n % 3), Bytes::new())
            .await
            .unwrap();
    }
    let first = blob.list("", None).await.unwrap();
    assert_eq!(first.len(), 1_000);
    assert!(first.is_sorted_by_key(|object| object.key.clone()));
    let rest = blob.list("", Some(&first[999].key)).await.unwrap();
    assert_eq!(rest.len(), 3);
}

#[tokio::test]
async fn parts_are_sent_while_the_body_still_comes() {
    let seaweed = Seaweed::shared().await;
    let blob = Blob::s3(seaweed.settings()).await;
    let is_far = || blob.metrics().requests(Op::UploadPart) == 2;

    half_upload(&blob, is_far, false).await;

    // Dropped in the middle: the abort runs in the background.
    blob.drain().await;
    assert_eq!(blob.sweep_uploads("", FOREVER).await.unwrap(), 0);
    assert_eq!(keys(&blob).await, [""; 0]);
}

#[tokio::test]
async fn the_sweep_takes_what_a_crash_left_in_s3() {
    let seaweed = Seaweed::shared().await;
    let blob = Blob::s3(seaweed.settings()).await;
    let is_far = || blob.metrics().requests(Op::UploadPart) == 2;

    half_upload(&blob, is_far, true).await;

    let long_ago = datetime!(2000-01-01 00:00 UTC);
    assert_eq!(blob.sweep_uploads("", long_ago).await.unwrap(), 0);
    assert_eq!(
        blob.sweep_uploads("other/", FOREVER).await.unwrap(),
        0,
        "not below this prefix"
    );
    assert_eq!(blob.sweep_uploads("ha", FOREVER).await.unwrap(), 1);
    assert_eq!(blob.sweep_uploads("", FOREVER).await.unwrap(), 0);
}

#[tokio::test]
async fn the_sweep_takes_what_a_crash_left_in_a_directory() {
    let folder = Scratch::new("blob");
    let unfinished = folder.path().join(".unfinished");
    let count = || std::fs::read_dir(&unfinished).unwrap().count();
    let blob = Blob::directory(folder.path()).await.unwrap();

    half_upload(&blob, || count() == 1, false).await;
    assert_eq!(count(), 0, "a dropped upload left its file");

    half_upload(&blob, || count() == 1, true).await;
    let blob = Blob::directory(folder.path()).await.unwrap();
    assert_eq!(keys(&blob).await, [""; 0]);
    let long_ago = datetime!(2000-01-01 00:00 UTC);
    assert_eq!(blob.sweep_uploads("", long_ago).await.unwrap(), 0);
    assert_eq!(blob.sweep_uploads("", FOREVER).await.unwrap(), 1);
    assert_eq!(count(), 0);
}

#[tokio::test]
async fn every_fault_of_the_network_is_a_retryable_error_in_time_and_passes() {
    const INTERNAL_ERROR: &str =
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let seaweed = Seaweed::shared().await;
    let proxy = Proxy::before(seaweed.at).await;
    let mut settings = seaweed.settings_through(proxy.at);
    settings.timeouts.attempt = Duration::from_millis(800);
    settings.timeouts.overall = Duration::from_secs(3);
    let blob = Blob::s3(settings).await;
    let body = pattern(MIB);
    blob.put("there", body.clone()).await.unwrap();

    for mode in [
        Mode::Answer(INTERNAL_ERROR),
        Mode::Refuse,
        Mode::Blackhole,
        Mode::ResetAfter(100_000),
        Mode::TruncateAfter(100_000),
        Mode::TruncateAfter(20),
    ] {
        proxy.set(mode);
        let started = Instant::now();
        let ranged = blob
            .range(TENANT, "there", 0..MIB as u64)
            .await
            .unwrap_err();
        let streamed = read(&blob, "there", MIB).await.unwrap_err();
        assert!(ranged.is_retryable(), "{mode:?}: {ranged:?}");
        assert!(streamed.is_retryable(), "{mode:?}: {streamed:?}");
        if !matches!(mode, Mode::ResetAfter(_) | Mode::TruncateAfter(100_000)) {
            let large = blob.upload(TENANT, "lost", pieces(pattern(9 * MIB)), u64::MAX);
            for error in [
                blob.check().await.unwrap_err(),
                blob.put("lost", Bytes::new()).await.unwrap_err(),
                large.await.unwrap_err(),
            ] {
                assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            }
        }
        let took = started.elapsed();
        // Five calls of three seconds each, and a machine that has other things to do.
        assert!(took < Duration::from_secs(30), "{mode:?} took {took:?}");

        proxy.set(Mode::Pass);
        let again = blob.range(TENANT, "there", 0..MIB as u64).await.unwrap();
        assert_eq!(again, body, "after {mode:?}");
    }
    assert!(blob.metrics().failures(Op::Get) >= 12);

    proxy.set(Mode::Latency(Duration::from_millis(5)));
    assert_eq!(
        blob.range(TENANT, "there", 0..9).await.unwrap(),
        body.slice(..9)
    );
}

#[tokio::test]
async fn a_check_returns_within_two_seconds() {
    let seaweed = Seaweed::shared().await;
    let proxy = Proxy::before(seaweed.at).await;
    proxy.set(Mode::Blackhole);
    let blob = Blob::s3(seaweed.settings_through(proxy.at)).await;

    let started = Instant::now();
    let error = blob.check().await.unwrap_err();

    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    // Two seconds, and far from those of a request.
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_body_that_is_not_read_gives_its_slot_to_the_next() {
    const SLOTS: usize = 64;
    let seaweed = Seaweed::shared().await;
    let mut settings = seaweed.settings();
    settings.timeouts.pause = Duration::from_millis(300);
    let blob = Blob::s3(settings).await;
    let body = pattern(8 * MIB);
    blob.put("there", body.clone()).await.unwrap();

    let mut left_lying = Vec::new();
    for _ in 0..SLOTS {
        left_lying.push(
            blob.stream(TENANT, "there", 0..8 * MIB as u64)
                .await
                .unwrap(),
        );
    }
    assert_eq!(read(&blob, "there", 8 * MIB).await.unwrap(), body);

    // Those that had to give way fail when their callers poll them after all.
    let mut gave_way = 0;
    for body in left_lying {
        match body.try_for_each(|_| std::future::ready(Ok(()))).await {
            Ok(()) => {}
            Err(Error::TakerStalled { .. }) => gave_way += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(gave_way > 0);
}

#[tokio::test]
async fn a_body_that_only_trickles_in_is_given_up() {
    let seaweed = Seaweed::shared().await;
    let mut settings = seaweed.settings();
    settings.timeouts.pause = Duration::from_millis(300);
    let trickle = stream::repeat(Bytes::from_static(b"."))
        .then(|byte| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, BoxError>(byte)
        })
        .take(10_000);

    let blob = Blob::s3(settings).await;
    let error = blob
        .upload(TENANT, "x", trickle, u64::MAX)
        .await
        .unwrap_err();

    assert!(matches!(error, Error::SourceStalled { .. }), "{error:?}");
    assert!(!error.is_retryable());
    assert_eq!(keys(&blob).await, [""; 0]);
}

#[tokio::test]
async fn a_large_object_is_given_the_time_that_its_bytes_need() {
    let seaweed = Seaweed::shared().await;
    let proxy = Proxy::before(seaweed.at).await;
    // 4 MiB in pieces of 16 KiB, each 5 ms late, take longer than an attempt without a body may.
    proxy.set(Mode::Latency(Duration::from_millis(5)));
    let mut settings = seaweed.settings_through(proxy.at);
    settings.timeouts.attempt = Duration::from_millis(500);
    settings.timeouts.overall = Duration::from_secs(1);
    let attempt = settings.timeouts.attempt;
    let blob = Blob::s3(settings).await;
    let body = pattern(4 * MIB);

    let started = Instant::now();
    blob.put("slow", body.clone()).await.unwrap();
    assert!(started.elapsed() > attempt, "it was not slow");
    assert_eq!(
        blob.range(TENANT, "slow", 0..4 * MIB as u64).await.unwrap(),
        body
    );
}

#[tokio::test]
async fn a_failed_upload_does_not_wait_until_its_parts_are_gone() {
    let seaweed = Seaweed::shared().await;
    let proxy = Proxy::before(seaweed.at).await;
    let blob = Blob::s3(seaweed.settings_through(proxy.at)).await;
    let mut failed_at = None;
    let gone = stream::once(async {
        proxy.set(Mode::Blackhole);
        failed_at = Some(Instant::now());
        Err::<Bytes, BoxError>("client went away".into())
    });

    let body = pieces(pattern(9 * MIB)).chain(gone);
    let error = blob.upload(TENANT, "x", body, u64::MAX).await.unwrap_err();

    assert!(matches!(error, Error::Source(_)), "{error:?}");
    let waited = failed_at.unwrap().elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    proxy.set(Mode::Pass);
    blob.drain().await;
    assert_eq!(blob.sweep_uploads("", FOREVER).await.unwrap(), 0);
}
