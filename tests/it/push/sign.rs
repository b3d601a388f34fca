//! Requests in the eyes of receivers: the public libraries of Standard Webhooks in three languages, those of CloudEvents
//! in two, and another implementation of Ed25519 verify what an endpoint gets. `.ci/parts` installs them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use api::Timestamp;
use api::push::{PushFormat, PushSettings};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cursus::engine::log::block::Block;
use cursus::engine::log::payload::{Meta, Payload, Records};
use cursus::engine::push::{Endpoint, request};
use cursus::engine::{Delivery, StoredMessage};
use cursus::outbound::Post;
use cursus::store::{Era, LaneId, Offset, TopicId};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use time::OffsetDateTime;

use super::{SUBSCRIPTION, URL, endpoint};
use crate::harness::Fleet;

/// A message that was handed out.
fn delivery(content_type: &str, body: &[u8]) -> Delivery {
    let mut records = Records::default();
    let meta = Meta {
        content_type: Some(content_type),
        ..Meta::default()
    };
    records.push(&meta, body);
    let payload = records.to_payload(Era::FIRST);
    let total = payload.len() as u64;
    let block = Block {
        lane: LaneId::new(1),
        first_offset: Offset::new(5),
        published_at: Timestamp(1_769_860_800_000_000),
        is_cold: false,
        payload: Payload::parse(Bytes::from(payload), total).unwrap(),
    };
    Delivery {
        receipt: "r".to_owned(),
        message: StoredMessage {
            block: Arc::new(block),
            index: 0,
            topic: Arc::new("t".parse().unwrap()),
            topic_id: TopicId::new(1),
        },
        attempt: 1,
        visible_until: Timestamp(1_769_860_830_000_000),
    }
}

const FORMATS: [PushFormat; 5] = [
    PushFormat::Raw,
    PushFormat::CloudeventsBinary,
    PushFormat::CloudeventsStructured,
    PushFormat::Json,
    PushFormat::JsonBatch,
];

const BODIES: [(&str, &[u8]); 4] = [
    (
        "application/json",
        "{\"order\": 1042, \"to\": \"Zoë\"}".as_bytes(),
    ),
    ("text/plain; charset=utf-8", b"hello"),
    ("application/octet-stream", b"\xff\x00"),
    ("text/plain; charset=utf-8", b""),
];

/// Each body in each format, signed now: the libraries compare the time with that of the machine.
fn requests(endpoint: &Endpoint) -> Vec<(PushFormat, usize, Post)> {
    #[expect(clippy::disallowed_methods, reason = "what the libraries compare with")]
    let now = OffsetDateTime::now_utc();
    let all = FORMATS.into_iter().flat_map(|format| {
        let bodies = BODIES.iter().enumerate();
        bodies.map(move |(index, (media, body))| (format, index, delivery(media, body)))
    });
    let made = all.map(|(format, index, delivery)| {
        let mut row = endpoint.row.clone();
        let settings = PushSettings {
            format: Some(format),
            ..endpoint.settings.clone()
        };
        row.settings = serde_json::to_string(&settings).unwrap();
        let endpoint = Endpoint::of(row).unwrap();
        let post = request::of(&endpoint, &[delivery], now).unwrap();
        (format, index, post)
    });
    made.collect()
}

fn as_json(post: &Post) -> Value {
    let headers = post.headers.iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    json!({
        "headers": headers.collect::<serde_json::Map<String, Value>>(),
        "body_base64": BASE64_STANDARD.encode(&post.body),
    })
}

/// What a program of another language reads.
async fn read_by(program: &str, script: &str, given: &Value) -> Vec<Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/push");
    let parts = std::env::home_dir().unwrap().join(".cache/cursus-test");
    let mut command = Command::new(parts.join("venv/bin").join(program));
    command
        .arg(folder.join(script))
        .env("NODE_PATH", parts.join("npm/node_modules"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = given.to_string();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("run .ci/parts");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let failure = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {failure}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A node whose subscription `s` signs with everything there is: the secrets, the key set.
async fn signed(fleet: &Fleet) -> (Vec<String>, Value) {
    let node = fleet.node().await;
    let push = json!({"url": URL, "signatures": ["v1", "v1a"], "auth": {"type": "jwt"}});
    node.topic_and_subscription(json!({})).await;
    let (_, made) = node.put(SUBSCRIPTION, json!({ "push": push })).await;
    let old = made["push"]["secret"].as_str().unwrap().to_owned();
    let path = format!("{SUBSCRIPTION}/push/secret");
    let (_, rotated) = node.post(&path, json!({})).await;
    let new = rotated["secret"].as_str().unwrap().to_owned();
    let (_, jwks) = node.get("/v1/tenants/default/jwks.json").await;
    node.stop().await;
    (vec![new, old], jwks)
}

#[tokio::test]
async fn the_crate_of_standard_webhooks_verifies_every_request_with_either_secret() {
    let fleet = Fleet::new().await;
    let (secrets, _) = signed(&fleet).await;
    for (format, index, post) in requests(&endpoint(&fleet).await) {
        let signature = post.headers["webhook-signature"].to_str().unwrap();
        let kinds: Vec<&str> = signature.split(' ').map(|one| &one[..3]).collect();
        assert_eq!(kinds, ["v1,", "v1,", "v1a"], "one space between them");
        for secret in &secrets {
            let webhook = Webhook::new(secret).unwrap();
            let verified = webhook.verify(&post.body, &post.headers);
            // It decodes every body as UTF-8.
            let is_text = std::str::from_utf8(&post.body).is_ok();
            assert_eq!(
                verified.is_ok(),
                is_text,
                "{format:?} {index}: {verified:?}"
            );
        }
        let other = Webhook::new(&format!("whsec_{}", "A".repeat(32))).unwrap();
        assert!(other.verify(&post.body, &post.headers).is_err());
    }
    fleet.finish([]).await;
}

/// Whether the body of a request is JSON.
fn is_json(format: PushFormat, index: usize) -> bool {
    match format {
        PushFormat::Json | PushFormat::JsonBatch => true,
        PushFormat::CloudeventsStructured => index != 2,
        PushFormat::Raw | PushFormat::CloudeventsBinary => index == 0,
    }
}

/// The data that a reader of the event finds. Bytes come back as bytes.
fn data(index: usize) -> Value {
    match BODIES[index] {
        ("application/json", body) => serde_json::from_slice(body).unwrap(),
        ("application/octet-stream", body) => json!({"base64": BASE64_STANDARD.encode(body)}),
        (_, b"") => Value::Null,
        (_, body) => std::str::from_utf8(body).unwrap().into(),
    }
}

#[tokio::test]
async fn the_libraries_of_python_read_every_request() {
    let fleet = Fleet::new().await;
    let (secrets, jwks) = signed(&fleet).await;
    let requests = requests(&endpoint(&fleet).await);
    let posts: Vec<Value> = requests.iter().map(|(.., post)| as_json(post)).collect();
    let given = json!({"secrets": secrets, "jwks": jwks, "requests": posts});
    let read = read_by("python3", "verify.py", &given).await;
    assert_eq!(read.len(), requests.len());
    for ((format, index, post), read) in requests.iter().zip(read) {
        let name = format!("{format:?} {index}: {read}");
        let is_text = std::str::from_utf8(&post.body).is_ok();
        for secret in 0..2 {
            let (parsed, unparsed) = (&read["parsed"][secret], &read["unparsed"][secret]);
            // It decodes every body as UTF-8.
            assert_eq!(unparsed.get("is").is_some(), is_text, "{name}");
            // An empty body is no JSON to it, and it says so by an error; so is a text.
            assert_eq!(
                parsed.get("is").is_some(),
                is_json(*format, *index),
                "{name}"
            );
        }
        let is_event = matches!(
            format,
            PushFormat::CloudeventsBinary | PushFormat::CloudeventsStructured
        );
        let event = json!(["00000001000000000005", data(*index)]);
        let events = if is_event {
            json!([event, event])
        } else {
            Value::Null
        };
        assert_eq!(read["events"], events, "{name}");
    }
    fleet.finish([]).await;
}

#[tokio::test]
async fn the_libraries_of_javascript_read_every_request_and_node_verifies_the_key_set() {
    let fleet = Fleet::new().await;
    let (secrets, jwks) = signed(&fleet).await;
    let requests = requests(&endpoint(&fleet).await);
    let posts: Vec<Value> = requests.iter().map(|(.., post)| as_json(post)).collect();
    let given = json!({"secrets": secrets, "jwks": jwks, "requests": posts});
    let read = read_by("node", "verify.js", &given).await;
    assert_eq!(read.len(), requests.len());
    for ((format, index, post), read) in requests.iter().zip(read) {
        let name = format!("{format:?} {index}: {read}");
        let is_text = std::str::from_utf8(&post.body).is_ok();
        for secret in 0..2 {
            let (parsed, unparsed) = (&read["parsed"][secret], &read["unparsed"][secret]);
            // It decodes every body as UTF-8, and then bytes are others.
            assert_eq!(unparsed.get("error").is_none(), is_text, "{name}");
            // An empty body is undefined.
            let is_parsed = is_json(*format, *index) || post.body.is_empty();
            assert_eq!(parsed.get("error").is_none(), is_parsed, "{name}");
        }
        assert_eq!(read["key"], json!([true]), "{name}");
        let token = &read["token"];
        assert_eq!(token["isValid"], true, "{name}");
        assert_eq!(token["kid"], jwks["keys"][0]["kid"]);
        let claims = &token["claims"];
        assert_eq!(
            (&claims["sub"], &claims["aud"]),
            (&json!("default"), &json!(URL))
        );
        let is_event = matches!(
            format,
            PushFormat::CloudeventsBinary | PushFormat::CloudeventsStructured
        );
        let mut event = json!(["00000001000000000005", data(*index)]);
        if (*format, *index) == (PushFormat::CloudeventsBinary, 3) {
            // To it, no body in binary mode is an empty text.
            event[1] = "".into();
        }
        assert_eq!(
            read["event"],
            if is_event { event } else { Value::Null },
            "{name}"
        );
    }
    fleet.finish([]).await;
}
