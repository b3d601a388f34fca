//! The operator's API: tenants and their keys from the first to the last day, and the log of it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, all, is, refusal, send, text, until};

/// All nodes know of a change within this.
const EVERYWHERE: Duration = Duration::from_secs(2);

/// A fleet that asks for keys, two nodes of it, and the key of its operator.
async fn operated() -> (Fleet, Node, Node) {
    let fleet = Fleet::closed().await;
    let (mut a, mut b) = (fleet.node().await, fleet.node().await);
    let operator = fleet.key_for("operators", &["admin"]).await;
    a.with_key(&operator);
    b.with_key(&operator);
    (fleet, a, b)
}

/// How long it takes until a request with this key gets this status.
async fn takes_until(node: &Node, key: &str, status: u16) -> Duration {
    let began = Instant::now();
    let is_so = async || {
        let asked = node.ask(key, Method::GET, "/v1/topics", None).await;
        (asked.0 == status).then_some(())
    };
    until("the other node knows", is_so).await;
    began.elapsed()
}

#[tokio::test]
async fn a_key_is_shown_once_works_on_all_nodes_and_is_revoked_on_all() {
    let (fleet, a, b) = operated().await;
    assert_eq!(a.put("/v1/admin/tenants/shop", json!({})).await.0, 201);
    assert_eq!(a.put("/v1/admin/tenants/shop", json!({})).await.0, 200);
    let settings = json!({"name": "web", "scopes": ["manage"]});

    let (status, made) = a.post("/v1/admin/tenants/shop/keys", settings).await;
    assert_eq!(status, 201, "{made}");
    let (secret, id) = (text(&made["secret"]), text(&made["key"]["id"]));
    assert!(secret.starts_with(&format!("cursus_{id}_")), "{secret}");
    for node in [&a, &b] {
        let used = node.ask(&secret, Method::GET, "/v1/topics", None).await;
        assert_eq!(used.0, 200, "at once");
    }
    let path = format!("/v1/admin/tenants/shop/keys/{id}");
    let revoke = format!("{path}/revoke");
    let (_, listed) = b.get("/v1/admin/tenants/shop/keys").await;
    assert_eq!(listed["items"][0]["name"], "web");
    assert!(!listed.to_string().contains(&secret), "{listed}");
    until("the key was used", async || {
        b.get(&path).await.1["last_used_at"].as_str().map(drop)
    })
    .await;

    assert_eq!(a.post(&revoke, json!({})).await.0, 204);
    let here = a.ask(&secret, Method::GET, "/v1/topics", None).await;
    assert_eq!(refusal(here), is(401, "unauthenticated", Value::Null));
    let took = takes_until(&b, &secret, 401).await;
    assert!(took < EVERYWHERE, "{took:?}");
    assert_eq!(
        b.post(&revoke, json!({})).await.0,
        204,
        "once more is as good"
    );
    assert!(b.get(&path).await.1["revoked_at"].is_string());
    let unknown = "/v1/admin/tenants/shop/keys/0123456789abcdef/revoke";
    assert_eq!(a.post(unknown, json!({})).await.0, 404);
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn a_key_expires_and_a_rotated_one_works_until_its_overlap_ends() {
    let (fleet, a, b) = operated().await;
    a.put("/v1/admin/tenants/shop", json!({})).await;
    let keys = "/v1/admin/tenants/shop/keys";
    let made = a.post(keys, json!({"expires_in_seconds": 100})).await.1;
    let (old, id) = (text(&made["secret"]), text(&made["key"]["id"]));
    let rotate = format!("{keys}/{id}/rotate");
    let works = async |node: &Node, key: &str| {
        node.ask(key, Method::GET, "/v1/topics", None).await.0 == 200
    };

    let (status, made) = a.post(&rotate, json!({"overlap_seconds": 30})).await;
    assert_eq!(status, 201, "{made}");
    let new = text(&made["secret"]);
    assert!(works(&a, &old).await && works(&b, &new).await);
    fleet.advance(31);
    assert!(!works(&a, &old).await && works(&a, &new).await);
    let ended = refusal(a.post(&rotate, json!({})).await);
    assert_eq!(ended, is(409, "conflict", Value::Null));
    // It lives as long as the one that it replaces had.
    fleet.advance(68);
    assert!(works(&b, &new).await);
    fleet.advance(1);
    assert!(!works(&a, &new).await && !works(&b, &new).await);
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_on_all_nodes_until_it_is_let_in_again() {
    let (fleet, a, b) = operated().await;
    let key = fleet.key("shop").await;
    takes_until(&b, &key, 200).await;
    let suspend = json!({"reason": "unpaid"});

    let (status, tenant) = a.post("/v1/admin/tenants/shop/suspend", suspend).await;
    assert_eq!(
        (status, &tenant["suspended_reason"]),
        (200, &json!("unpaid"))
    );
    let took = takes_until(&b, &key, 403).await;
    assert!(took < EVERYWHERE, "{took:?}");
    let (_, tenant) = b.post("/v1/admin/tenants/shop/resume", json!({})).await;
    assert_eq!(
        (&tenant["suspended"], tenant.get("suspended_reason")),
        (&json!(false), None)
    );
    assert!(takes_until(&a, &key, 200).await < EVERYWHERE);
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn an_operator_of_some_tenants_operates_no_other_and_cannot_grant_more() {
    let (fleet, a, b) = operated().await;
    for tenant in ["shop-1", "shop-2", "bank"] {
        a.put(&format!("/v1/admin/tenants/{tenant}"), json!({}))
            .await;
    }
    let key = fleet.key_for("operators", &["admin:shop-*"]).await;
    let ask = async |method, path: &str, body| a.ask(&key, method, path, body).await;
    let forbidden = is(403, "forbidden", Value::Null);

    let (_, listed) = ask(Method::GET, "/v1/admin/tenants", None).await;
    let names = all(listed["items"].as_array().unwrap(), "name");
    assert_eq!(names, ["shop-1", "shop-2"]);
    let keys = "/v1/admin/tenants/shop-1/keys";
    assert_eq!(ask(Method::POST, keys, Some(json!({}))).await.0, 201);
    for scope in ["admin", "admin:shop-*"] {
        let more = Some(json!({"scopes": [scope]}));
        assert_eq!(refusal(ask(Method::POST, keys, more).await), forbidden);
    }
    let bigger = a.post(keys, json!({"scopes": ["admin"]})).await.1;
    let rotate = format!("{keys}/{}/rotate", text(&bigger["key"]["id"]));
    assert_eq!(refusal(ask(Method::POST, &rotate, None).await), forbidden);
    for (method, path) in [
        (Method::GET, "/v1/admin/tenants/bank"),
        (Method::PUT, "/v1/admin/tenants/bank2"),
        (Method::POST, "/v1/admin/tenants/bank/keys"),
        (Method::GET, "/v1/admin/issuers"),
        (Method::DELETE, "/v1/admin/issuers/i"),
        (Method::GET, "/v1/admin/audit"),
        (Method::GET, "/v1/admin/audit?tenant=bank"),
        (Method::GET, "/v1/admin/nodes"),
        (Method::GET, "/v1/topics"),
    ] {
        assert_eq!(refusal(ask(method, path, None).await), forbidden, "{path}");
    }
    let log = ask(Method::GET, "/v1/admin/audit?tenant=shop-1", None).await;
    assert_eq!(log.0, 200, "{}", log.1);
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn every_change_of_the_control_plane_is_in_the_log_and_no_secret() {
    let (fleet, a, b) = operated().await;
    a.put("/v1/admin/tenants/other", json!({})).await;
    a.put("/v1/admin/tenants/shop", json!({})).await;
    let made = a.post("/v1/admin/tenants/shop/keys", json!({})).await.1;
    let (secret, id) = (text(&made["secret"]), text(&made["key"]["id"]));
    let change = async |method, path: &str, body| {
        let (status, answer) = b.ask(&secret, method, path, body).await;
        assert!(status < 300, "{path}: {answer}");
    };
    let settings = json!({"retention_seconds": 60});
    change(Method::PUT, "/v1/topics/t", Some(settings.clone())).await;
    change(Method::PUT, "/v1/topics/t", Some(settings)).await;
    let reading = Some(json!({"topic": "t"}));
    change(Method::PUT, "/v1/subscriptions/s", reading).await;
    change(Method::DELETE, "/v1/subscriptions/s", None).await;
    change(Method::DELETE, "/v1/topics/t", None).await;
    let refused = b.ask(&secret, Method::DELETE, "/v1/topics/t", None).await;
    assert_eq!(refused.0, 404);
    let revoke = format!("/v1/admin/tenants/shop/keys/{id}/revoke");
    a.post(&revoke, json!({})).await;

    let mut entries = Vec::new();
    let mut path = "/v1/admin/audit?tenant=shop&limit=3".to_owned();
    loop {
        let (_, page) = b.get(&path).await;
        entries.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/admin/audit?tenant=shop&limit=3&after={next}");
    }
    let expected = [
        "key.revoke",
        "topic.delete",
        "subscription.delete",
        "subscription.put",
        "topic.put",
        "key.create",
        "tenant.put",
    ];
    assert_eq!(
        all(&entries, "action"),
        expected,
        "what changes nothing is not a change"
    );
    assert_eq!(entries[4]["detail"]["retention_seconds"], 60);
    assert_eq!(entries[4]["actor"], format!("key:{id}"));
    assert_eq!(entries[0]["target"], id);
    assert!(!format!("{entries:?}").contains(&secret));
    let nodes = a.get("/v1/admin/nodes").await.1;
    assert_eq!(nodes["items"].as_array().unwrap().len(), 2, "{nodes}");
    let whole = b.get("/v1/admin/audit").await.1;
    assert!(whole["items"].as_array().unwrap().len() > entries.len());
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_half_done() {
    let (fleet, a, b) = operated().await;
    a.put("/v1/admin/tenants/shop", json!({})).await;
    let keys = "/v1/admin/tenants/shop/keys";
    for (body, pointer) in [
        (json!({"scopes": ["eat"]}), "/scopes/0"),
        (json!({"scopes": ["publish", "publish:a b"]}), "/scopes/1"),
        (json!({"scopes": []}), "/scopes"),
        (json!({"expires_in_seconds": 0}), "/expires_in_seconds"),
        (json!({"expires": 1}), "/expires"),
    ] {
        let refused = refusal(a.post(keys, body).await);
        assert_eq!(refused, is(400, "invalid_request", json!(pointer)));
    }
    let reason = json!({"reason": ""});
    let refused = refusal(a.post("/v1/admin/tenants/shop/suspend", reason).await);
    assert_eq!(refused, is(400, "invalid_request", json!("/reason")));
    let missing = a.post("/v1/admin/tenants/none/keys", json!({})).await;
    assert_eq!(refusal(missing), is(404, "not_found", Value::Null));
    let named = a.get("/v1/admin/tenants/-x").await;
    assert_eq!(
        refusal(named),
        is(400, "invalid_request", json!("parameter:tenant"))
    );
    let issuer = json!({"issuer": "https://i", "jwks_url": "http://i/jwks", "audiences": ["c"], "tenant": {"name": "shop"}});
    let refused = refusal(a.put("/v1/admin/issuers/i", issuer).await);
    assert_eq!(refused, is(400, "invalid_request", json!("/jwks_url")));
    for url in [
        "https://me:secret@i.example/jwks",
        "https://10.0.0.1/jwks",
        "https://169.254.169.254/",
    ] {
        let issuer = json!({"issuer": "https://i", "jwks_url": url, "audiences": ["c"], "tenant": {"name": "shop"}});
        let refused = a.put("/v1/admin/issuers/i", issuer).await;
        assert!(!refused.1.to_string().contains("secret"), "{}", refused.1);
        assert_eq!(
            refusal(refused),
            is(400, "invalid_request", json!("/jwks_url")),
            "{url}"
        );
    }
    let (_, listed) = a.get(keys).await;
    assert_eq!(listed["items"], json!([]));
    let get = a.request(Method::GET, "/v1/admin/issuers");
    assert_eq!(send(get).await.1["items"], json!([]));
    fleet.finish([a, b]).await;
}
