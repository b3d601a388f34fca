//! Endpoints over HTTP: what may be put, what is shown and what never is, and how a subscription goes from pull to push
//! and back.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;

use super::{SUBSCRIPTION, URL, endpoint};
use crate::harness::{Fleet, Node, is, refusal, send, until};

async fn put(node: &Node, push: Value) -> (u16, Value) {
    node.put(SUBSCRIPTION, json!({ "push": push })).await
}

async fn shown(node: &Node) -> Value {
    let (status, subscription) = node.get(SUBSCRIPTION).await;
    assert_eq!(status, 200, "{subscription}");
    subscription
}

/// The value of `Authorization` of requests to the endpoint.
async fn authorization(fleet: &Fleet) -> Value {
    let row = endpoint(fleet).await.row;
    row.credential
        .map_or(Value::Null, |credential| credential.0.into())
}

#[tokio::test]
async fn an_endpoint_is_put_shown_and_removed_while_leases_go_on() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.publish("a").await;
    node.publish("b").await;
    let pulled = node.receive(1).await;

    let request = node.request(Method::PUT, SUBSCRIPTION);
    let body = json!({"push": {"url": URL, "format": "json", "headers": {"X-A": "1"}}});
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut made: Value = response.json().await.unwrap();
    let secret = made["push"].as_object_mut().unwrap().remove("secret");
    assert!(secret.unwrap().as_str().unwrap().starts_with("whsec_"));
    let push = json!({"url": URL, "format": "json", "headers": {"X-A": "1"}});
    assert_eq!((&made["push"], &made["push_status"]), (&push, &json!({})));
    assert_eq!(shown(&node).await, made, "the secret is shown once");
    let (_, list) = node.get("/v1/subscriptions").await;
    assert_eq!(list["items"], json!([made]));

    let results = node.ack(&[&pulled[0]["receipt"]]).await;
    assert_eq!(
        results,
        [json!({})],
        "what was received before can be settled"
    );

    // What it shows may be put again, and then nothing changes.
    fleet.advance(60);
    let request = node.request(Method::PUT, SUBSCRIPTION);
    let again = request.json(&json!({ "push": push })).send().await.unwrap();
    assert_eq!(again.headers().get("cache-control"), None);
    assert_eq!(again.json::<Value>().await.unwrap(), made);
    assert_eq!(endpoint(&fleet).await.row.version, 1);

    let refused = refusal(
        node.post(&format!("{SUBSCRIPTION}/receive"), json!({}))
            .await,
    );
    assert_eq!(refused, is(409, "conflict", Value::Null));

    let (_, changed) = put(&node, json!({"url": URL, "timeout_seconds": 5})).await;
    let push = json!({"url": URL, "timeout_seconds": 5});
    assert_eq!(changed["push"], push, "it replaces all settings");
    assert_ne!(changed["updated_at"], made["updated_at"]);
    let (_, other) = node.put(SUBSCRIPTION, json!({"max_attempts": 3})).await;
    assert_eq!(other["push"], push, "absent, it keeps them");

    let (status, pull) = put(&node, json!({"enabled": false})).await;
    let absent = (pull.get("push"), pull.get("push_status"));
    assert_eq!((status, absent), (200, (None, None)));
    // Nobody was there to push the other message to.
    until("it is received", async || {
        fleet.advance(3_600);
        (node.receive(10).await.len() == 1).then_some(())
    })
    .await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_subscription_may_be_created_with_an_endpoint_and_is_deleted_with_it() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let secret = format!("whsec_{}", "A".repeat(32));
    let push = json!({"url": URL, "secret": secret, "retry": {"policy": "list", "delays_seconds": [1, 2.0]}});
    node.topic_and_subscription(json!({ "push": push })).await;
    let made = shown(&node).await;
    assert_eq!(made["push"].get("secret"), None, "the caller knows it");
    assert_eq!(made["push"]["retry"]["delays_seconds"], json!([1, 2]));
    assert_eq!(endpoint(&fleet).await.row.secret.0, [0; 24]);
    assert_eq!(node.delete(SUBSCRIPTION).await.0, 204);
    let mut sql = fleet.database.connect().await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM push_endpoint")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    sql.close().await.unwrap();
    assert_eq!(count, 0);
    fleet.finish([node]).await;
}

fn bad_urls() -> Vec<(Value, &'static str)> {
    let long = format!("https://a/{}", "x".repeat(2_048));
    let urls = [
        Value::Null,
        "".into(),
        "app.example".into(),
        "ftp://app.example/".into(),
        "http://app.example/".into(),
        "https://10.0.0.1/".into(),
        "https://169.254.169.254/latest".into(),
        "https://[::ffff:10.0.0.1]/".into(),
        "https://me:secret@app.example/".into(),
        "https://app.example/\r\nhost: evil".into(),
        long.into(),
    ];
    urls.map(|url: Value| (json!({ "url": url }), "/push/url"))
        .to_vec()
}

fn bad_headers() -> Vec<(Value, &'static str)> {
    let headers = [
        ("X-A", "1\r\nhost: evil", "/push/headers/X-A"),
        ("X-A", "ü", "/push/headers/X-A"),
        ("X-A", " 1", "/push/headers/X-A"),
        ("X-A", "", "/push/headers/X-A"),
        ("X A", "1", "/push/headers/X A"),
        ("X/A\r\n", "1", "/push/headers/X~1A\r\n"),
        ("Host", "evil", "/push/headers/Host"),
        ("Authorization", "x", "/push/headers/Authorization"),
        ("Webhook-Id", "x", "/push/headers/Webhook-Id"),
        ("CE-Id", "x", "/push/headers/CE-Id"),
    ];
    let mut bad = headers
        .map(|(name, value, pointer)| (json!({"headers": {name: value}}), pointer))
        .to_vec();
    let twice = json!({"headers": {"X-a": "1", "x-A": "2"}});
    bad.push((twice, "/push/headers/x-A"));
    let many: serde_json::Map<String, Value> =
        (0..21).map(|n| (format!("x-{n}"), "1".into())).collect();
    bad.push((json!({ "headers": many }), "/push/headers"));
    bad
}

fn bad_keys() -> Vec<(Value, &'static str)> {
    let url_safe = format!("whsec_{}", "-_".repeat(16));
    let unpadded = format!("whsec_{}", "A".repeat(43));
    let basic = |name: &str| json!({"type": "basic", "username": name, "password": "p"});
    let mut bad = vec![
        (json!({"signatures": []}), "/push/signatures"),
        (json!({"signatures": ["v1", "v1"]}), "/push/signatures"),
        (json!({"signatures": ["v2"]}), "/push/signatures/0"),
    ];
    for secret in ["whsec_AAAA", &unpadded, &url_safe, &"A".repeat(32)] {
        bad.push((json!({"secret": secret}), "/push/secret"));
    }
    for (auth, pointer) in [
        (basic("a:b"), "/push/auth/username"),
        (basic("a\r\nb"), "/push/auth/username"),
        (
            json!({"type": "basic", "username": "a"}),
            "/push/auth/password",
        ),
        (json!({"type": "bearer"}), "/push/auth/token"),
        (
            json!({"type": "bearer", "token": "a\nb"}),
            "/push/auth/token",
        ),
        (
            json!({"type": "jwt", "audience": ""}),
            "/push/auth/audience",
        ),
        (json!({"type": "digest"}), "/push/auth/type"),
    ] {
        bad.push((json!({"auth": auth}), pointer));
    }
    bad
}

fn bad_rest() -> Vec<(Value, &'static str)> {
    let many: Vec<u32> = (1..=51).collect();
    let list = |delays: Value| json!({"retry": {"policy": "list", "delays_seconds": delays}});
    let exponential = json!({"policy": "exponential", "min_seconds": 9, "max_seconds": 8});
    let batch = json!({"format": "json_batch", "batch_max_messages": 101});
    let both = json!({"per_second": 1, "per_minute": 1});
    vec![
        (json!({"limits": both}), "/push/limits"),
        (
            json!({"limits": {"concurrency": 0}}),
            "/push/limits/concurrency",
        ),
        (
            json!({"limits": {"per_second": 100_001}}),
            "/push/limits/per_second",
        ),
        (json!({"timeout_seconds": 31}), "/push/timeout_seconds"),
        (
            json!({"disable_after_seconds": 59}),
            "/push/disable_after_seconds",
        ),
        (
            json!({"batch_max_messages": 10}),
            "/push/batch_max_messages",
        ),
        (batch, "/push/batch_max_messages"),
        (json!({"format": "xml"}), "/push/format"),
        (list(json!([])), "/push/retry/delays_seconds"),
        (list(json!(many)), "/push/retry/delays_seconds"),
        (list(json!([1, 0])), "/push/retry/delays_seconds/1"),
        (json!({"retry": exponential}), "/push/retry/max_seconds"),
        (json!({"retry": {"policy": "never"}}), "/push/retry/policy"),
        (json!({"colour": 1}), "/push/colour"),
    ]
}

#[tokio::test]
async fn what_is_no_endpoint_is_refused_by_its_field() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let bad = [bad_urls(), bad_headers(), bad_keys(), bad_rest()];
    for (extra, pointer) in bad.into_iter().flatten() {
        let mut push = json!({ "url": URL });
        let extra = extra.as_object().unwrap().clone();
        push.as_object_mut().unwrap().extend(extra);
        let (status, problem) = put(&node, push.clone()).await;
        let detail = problem["errors"][0]["detail"].as_str().unwrap_or_default();
        assert!(detail.len() > 5, "{push}: {problem}");
        let expected = is(400, "invalid_request", json!(pointer));
        assert_eq!(refusal((status, problem)), expected, "{push}");
    }
    let twice = r#"{"push": {"url": "https://a/", "headers": {"a": "1", "a": "2"}}}"#;
    let request = node.request(Method::PUT, SUBSCRIPTION);
    let request = request.header("content-type", "application/json");
    assert_eq!(send(request.body(twice)).await.0, 400);
    assert_eq!(shown(&node).await.get("push"), None);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn secrets_are_kept_and_never_shown() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let secret = format!("whsec_{}", "B".repeat(32));
    let with = |auth: Value| json!({"url": URL, "auth": auth, "headers": {"X-Key": "hush-header"}});
    let mut first = with(json!({"type": "basic", "username": "me", "password": "hush-password"}));
    first["secret"] = secret.clone().into();
    let (status, made) = put(&node, first).await;
    assert_eq!(status, 200);
    assert_eq!(
        made["push"]["auth"],
        json!({"type": "basic", "username": "me"})
    );
    assert_eq!(authorization(&fleet).await, "hush-password");

    // What is absent stays, but not for another kind, another user, or another origin.
    let kept = json!({"type": "basic", "username": "me"});
    assert_eq!(put(&node, with(kept.clone())).await.0, 200);
    let mut path = with(kept.clone());
    path["url"] = "https://app.example/other".into();
    assert_eq!(put(&node, path).await.0, 200);
    assert_eq!(authorization(&fleet).await, "hush-password");
    let key = endpoint(&fleet).await.row.secret.0;
    assert_eq!(api::push::secret_bytes(&secret).unwrap(), key);
    let mut elsewhere = with(kept);
    elsewhere["url"] = "https://evil.example/hooks/billing".into();
    let other = with(json!({"type": "basic", "username": "you"}));
    for refused in [elsewhere, other] {
        let refused = refusal(put(&node, refused).await);
        assert_eq!(
            refused,
            is(400, "invalid_request", json!("/push/auth/password"))
        );
    }
    let bearer = refusal(put(&node, with(json!({"type": "bearer"}))).await);
    assert_eq!(
        bearer,
        is(400, "invalid_request", json!("/push/auth/token"))
    );
    let token = with(json!({"type": "bearer", "token": "hush-token"}));
    let (_, put_token) = put(&node, token).await;
    assert_eq!(put_token["push"]["auth"], json!({"type": "bearer"}));
    assert_eq!(authorization(&fleet).await, "hush-token");
    let (_, none) = put(&node, json!({ "url": URL })).await;
    assert_eq!(none["push"].get("auth"), None);
    assert_eq!(authorization(&fleet).await, Value::Null, "it is gone");

    let (_, log) = node.get("/v1/admin/audit?limit=100").await;
    let (_, list) = node.get("/v1/subscriptions").await;
    let all = [log.clone(), list, made, put_token, shown(&node).await];
    for hidden in [secret.as_str(), "hush-password", "hush-token"] {
        assert!(
            !all.iter().any(|one| one.to_string().contains(hidden)),
            "{hidden}"
        );
    }
    assert!(!log.to_string().contains("hush-header"));
    assert!(log.to_string().contains("\"password\":\"***\""), "{log}");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_new_secret_signs_beside_the_former_one_for_a_while() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({"push": {"url": URL}}))
        .await;
    let first = endpoint(&fleet).await.row.secret;
    let path = format!("{SUBSCRIPTION}/push/secret");
    let request = node.request(Method::POST, &path).send().await.unwrap();
    assert_eq!(request.headers()["cache-control"], "no-store");
    let made: Value = request.json().await.unwrap();
    let until = "2030-01-02T00:00:00.000Z";
    assert_eq!(made["old_secret_until"], until, "a day by default");
    assert_eq!(
        shown(&node).await["push_status"],
        json!({"old_secret_until": until})
    );
    let row = endpoint(&fleet).await.row;
    assert_eq!(row.old_secret, Some(first));
    let secret = made["secret"].as_str().unwrap();
    assert_eq!(row.secret.0, api::push::secret_bytes(secret).unwrap());

    fleet.advance(86_400);
    assert_eq!(shown(&node).await["push_status"], json!({}), "it is over");
    let (_, short) = node.post(&path, json!({"overlap_seconds": 604_800})).await;
    assert_eq!(short["old_secret_until"], "2030-01-09T00:00:00.000Z");
    let (_, at_once) = node.post(&path, json!({"overlap_seconds": 0})).await;
    assert_eq!(at_once.get("old_secret_until"), None);
    assert_eq!(endpoint(&fleet).await.row.old_secret, None);
    let given = json!({"url": URL, "secret": format!("whsec_{}", "C".repeat(32))});
    let (_, given) = put(&node, given).await;
    let until = &given["push_status"]["old_secret_until"];
    assert_eq!(until, "2030-01-03T00:00:00.000Z", "one that is given, too");
    let row = endpoint(&fleet).await.row;
    assert_eq!(row.version, 5, "its driver notices each change");
    let refused = refusal(node.post(&path, json!({"overlap_seconds": 604_801})).await);
    assert_eq!(
        refused,
        is(400, "invalid_request", json!("/overlap_seconds"))
    );
    let (_, log) = node.get("/v1/admin/audit?limit=100").await;
    assert!(log.to_string().contains("subscription.rotate_push_secret"));
    assert!(!log.to_string().contains("whsec_"), "{log}");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_endpoint_is_paused_and_resumed_and_a_disabled_one_enabled() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for verb in ["pause", "resume", "secret"] {
        let path = format!("{SUBSCRIPTION}/push/{verb}");
        let refused = refusal(node.post(&path, json!({})).await);
        assert_eq!(refused, is(409, "conflict", Value::Null), "{verb} of pull");
        let path = format!("/v1/subscriptions/none/push/{verb}");
        let refused = refusal(node.post(&path, json!({})).await);
        assert_eq!(refused, is(404, "not_found", Value::Null), "{verb}");
    }
    put(&node, json!({ "url": URL })).await;
    let turn = async |verb: &str| {
        let path = format!("{SUBSCRIPTION}/push/{verb}");
        let (status, subscription) = node.post(&path, json!({})).await;
        assert_eq!(status, 200, "{subscription}");
        subscription["push_status"].clone()
    };
    let paused = json!({"paused_at": "2030-01-01T00:00:00.000Z"});
    assert_eq!(turn("pause").await, paused);
    fleet.advance(60);
    assert_eq!(turn("pause").await, paused, "since then");
    let (_, still) = put(&node, json!({"url": URL, "timeout_seconds": 9})).await;
    assert_eq!(still["push_status"], paused, "settings do not resume it");
    assert_eq!(turn("resume").await, json!({}));
    assert_eq!(turn("resume").await, json!({}));
    let mut sql = fleet.database.connect().await;
    let disable = "UPDATE push_endpoint SET disabled_at = '2030-01-01', disabled_reason = 'gone',
                   failing_since = '2030-01-01'";
    for again in ["resume", "put"] {
        sqlx::query(disable).execute(&mut sql).await.unwrap();
        let status = shown(&node).await["push_status"].clone();
        assert_eq!(status["disabled_reason"], "gone");
        let status = match again {
            "resume" => turn("resume").await,
            _ => {
                let same = json!({"url": URL, "timeout_seconds": 9});
                put(&node, same).await.1["push_status"].clone()
            }
        };
        assert_eq!(status, json!({}), "{again}");
        assert_eq!(endpoint(&fleet).await.row.failing_since, None);
    }
    sql.close().await.unwrap();
    fleet.finish([node]).await;
}

#[tokio::test]
async fn the_keys_of_a_tenant_are_public_and_made_when_needed() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    node.topic_and_subscription(json!({"push": {"url": URL}}))
        .await;
    let keys = async |tenant: &str, tag: &str| {
        let path = format!("http://{}/v1/tenants/{tenant}/jwks.json", node.address);
        let request = node.client.get(path).header("if-none-match", tag);
        request.send().await.unwrap()
    };
    let none = keys("a", "x").await;
    assert_eq!(none.headers()["cache-control"], "max-age=300");
    assert_eq!(none.json::<Value>().await.unwrap(), json!({"keys": []}));
    assert_eq!(keys("nobody", "x").await.status(), 404);

    let (status, _) = put(&node, json!({"url": URL, "signatures": ["v1a"]})).await;
    assert_eq!(status, 200);
    let some = keys("a", "x").await;
    let tag = some.headers()["etag"].to_str().unwrap().to_owned();
    let some: Value = some.json().await.unwrap();
    let key = &some["keys"][0];
    let kind = json!([key["kty"], key["crv"], key["use"], key["alg"]]);
    assert_eq!(kind, json!(["OKP", "Ed25519", "sig", "EdDSA"]));
    assert_eq!(format!("{}", key["kid"]), tag);
    assert_eq!(keys("a", &tag).await.status(), 304);
    put(&node, json!({"url": URL, "auth": {"type": "jwt"}})).await;
    let same: Value = keys("a", "x").await.json().await.unwrap();
    assert_eq!(same, some, "a tenant has one key");
    fleet.finish([node]).await;
}
