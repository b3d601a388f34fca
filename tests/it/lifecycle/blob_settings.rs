//! Settings of object storage: what storage refuses with its reason, and checksums for storage that refuses those.

use bytes::Bytes;
use cursus::blob::{Blob, Error};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::harness::seaweed::{ACCESS_KEY, Seaweed};

const TENANT: i64 = 1;

#[tokio::test]
async fn wrong_settings_are_refused_with_their_reason() {
    let seaweed = Seaweed::shared().await;
    let mut settings = seaweed.settings();
    settings.secret = Some("hunter2".to_owned());
    let shown = format!("{settings:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains(ACCESS_KEY),
        "{shown}"
    );
    let blob = Blob::s3(settings).await;
    for error in [
        blob.check().await.unwrap_err(),
        blob.put("x", Bytes::new()).await.unwrap_err(),
        blob.range(TENANT, "x", 0..1).await.unwrap_err(),
    ] {
        let refused =
            matches!(&error, Error::Refused { code, .. } if code == "SignatureDoesNotMatch");
        assert!(refused && !error.is_retryable(), "{error:?}");
    }

    let mut settings = seaweed.settings();
    settings.bucket = "no-such-bucket".to_owned();
    let blob = Blob::s3(settings).await;
    let error = blob.check().await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused { code, .. } if code == "NoSuchBucket"),
        "{error:?}"
    );
}

/// The head of the request that writes an object.
async fn head_of_put(checksums: bool) -> String {
    let storage = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let seaweed = Seaweed::shared().await;
    let mut settings = seaweed.settings_through(storage.local_addr().unwrap());
    settings.checksums = checksums;
    let blob = Blob::s3(settings).await;
    let head = async {
        let (mut request, _) = storage.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(request.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap().to_lowercase()
    };
    tokio::select! {
        head = head => head,
        put = blob.put("x", Bytes::from_static(b"body")) => panic!("{put:?}"),
    }
}

#[tokio::test]
async fn checksums_can_be_left_out_for_storage_that_refuses_them() {
    let (with, without) = tokio::join!(head_of_put(true), head_of_put(false));
    assert!(with.contains("checksum-crc32"), "{with}");
    assert!(!without.contains("checksum"), "{without}");
}
