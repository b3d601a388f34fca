//! What each caller may do: keys of a fleet, and tenants that see nothing of each other (I7).

use std::collections::HashMap;
use std::time::Instant;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, all, is, refusal, send, text};

#[tokio::test]
async fn a_fleet_refuses_requests_without_a_key() {
    let fleet = Fleet::closed().await;
    let mut node = fleet.node().await;
    let response = node
        .request(Method::GET, "/v1/topics")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["www-authenticate"]
        ),
        (401, &"Bearer".parse().unwrap())
    );
    node.with_key("csk_wrong");
    assert_eq!(
        refusal(node.get("/v1/topics").await),
        is(401, "unauthenticated", Value::Null)
    );
    assert_eq!(node.get("/healthz").await.0, 200, "probes need none");
    fleet.finish([node]).await;
}

/// An operation of the document, as a request to what tenant `a` has.
struct Operation {
    id: String,
    method: Method,
    path: String,
    body: Option<Value>,
    /// Each of these is enough.
    scopes: Vec<String>,
}

/// All operations that need a key, from the document: no route is forgotten.
async fn operations(node: &Node, message: &str, key: &str) -> Vec<Operation> {
    let (_, document) = node.get("/openapi.json").await;
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = text(&operation["operationId"]);
            let scopes = operation["x-scopes"].as_array();
            let scopes: Vec<String> = scopes.into_iter().flatten().map(text).collect();
            // What is signed can be verified without a key.
            if !path.starts_with("/v1/") || id == "get_jwks" {
                continue;
            }
            assert!(!scopes.is_empty(), "{id} says no scope");
            let path = path
                .replace("{topic}", "t")
                .replace("{subscription}", "s")
                .replace("{id}", message)
                .replace("{tenant}", "a")
                .replace("{key}", key)
                .replace("{issuer}", "i")
                .replace("{budget}", "b")
                .replace("{plan}", "p")
                .replace("{valid_from}", "2030-01-01")
                .replace("{sink}", "e");
            assert!(!path.contains('{'), "{id}: what is in {path}?");
            found.push(Operation {
                body: body(&id),
                method: method.to_uppercase().parse().unwrap(),
                id,
                path,
                scopes,
            });
        }
    }
    // What is deleted is not there for the others, and after `suspend` nothing goes.
    let order = |operation: &Operation| {
        (
            operation.id == "suspend_tenant",
            operation.method == Method::DELETE,
        )
    };
    found.sort_by_key(order);
    found
}

fn body(id: &str) -> Option<Value> {
    Some(match id {
        "publish" | "receive" | "put_topic" | "put_tenant" | "create_key" | "rotate_key"
        | "suspend_tenant" | "put_tenant_quota" => json!({}),
        "publish_batch" => json!({"messages": [{"body": "b"}]}),
        "ack" => json!({"receipts": ["r"]}),
        "change_visibility" => {
            json!({"changes": [{"receipt": "r", "visibility_timeout_seconds": 1}]})
        }
        "resend" => json!({"from": "2020-01-01T00:00:00Z"}),
        "settle" => json!({"items": [{"receipt": "r", "action": "ack"}]}),
        "put_subscription" => json!({"topic": "t"}),
        "put_issuer" => json!({
            "issuer": "https://i", "jwks_url": "http://127.0.0.1:1/jwks", "audiences": ["c"], "tenant": {"name": "a"},
        }),
        "put_budget" => json!({"amount": "1"}),
        "put_event_sink" => json!({"topic": "t"}),
        "put_plan_version" => json!({"currency": "EUR", "prices": {}}),
        _ => return None,
    })
}

/// A node of tenant `a`, which has one of everything.
async fn owner(fleet: &Fleet) -> Node {
    let node = fleet.node_of("a").await;
    node.topic_and_subscription(json!({})).await;
    let sink = node.put("/v1/event-sinks/e", json!({"topic": "t"})).await;
    let budget = node.put("/v1/budgets/b", json!({"amount": "1"})).await;
    assert_eq!((sink.0, budget.0), (201, 201));
    node
}

#[tokio::test]
async fn a_tenant_reaches_nothing_of_another_on_any_route() {
    let fleet = Fleet::closed().await;
    let (a, b) = (owner(&fleet).await, fleet.node().await);
    let stranger = fleet.key("b").await;
    let id = a.publish("secret").await;
    let receipt = a.receive(1).await[0]["receipt"].clone();

    let mut creates = Vec::new();
    for operation in operations(&b, &id, "0123456789abcdef").await {
        let (id, method, path) = (operation.id, operation.method, operation.path);
        let (body, scopes) = (operation.body, operation.scopes);
        if scopes == ["admin"] {
            let (status, answer) = b.ask(&stranger, method, &path, body).await;
            assert_eq!(
                (status, text(&answer["code"])),
                (403, "forbidden".to_owned()),
                "{id}"
            );
            continue;
        }
        match &*id {
            "get_quota" => {
                let own = b.ask(&stranger, method, &path, body).await;
                assert_eq!((own.0, &own.1["limits"]), (200, &json!({})), "{id}");
            }
            put if put.starts_with("put_") => creates.push((method, path, body)),
            list if list.starts_with("list_") || list == "get_usage" => {
                let listed = b.ask(&stranger, method, &path, body).await;
                assert_eq!((listed.0, &listed.1["items"]), (200, &json!([])), "{id}");
            }
            "get_usage_month" => {
                let (status, month) = b.ask(&stranger, method, &path, body).await;
                assert_eq!((status, &month["meters"]), (200, &json!([])), "{id}");
            }
            "export_usage" => {
                let refused = refusal(b.ask(&stranger, method, &path, body).await);
                assert_eq!(refused, is(409, "conflict", Value::Null), "it has no plan");
            }
            _ => {
                let refused = refusal(b.ask(&stranger, method, &path, body).await);
                assert_eq!(refused, is(404, "not_found", Value::Null), "{id}");
            }
        }
    }
    // The topic of a subscription or sink is looked for in the caller's tenant, and the same names are other things there.
    for path in ["/v1/subscriptions/s", "/v1/event-sinks/e"] {
        let linked = b.ask(&stranger, Method::PUT, path, Some(json!({"topic": "t"})));
        assert_eq!(refusal(linked.await), is(404, "not_found", Value::Null));
    }
    creates.sort_by_key(|(_, path, _)| !path.contains("topics"));
    for (method, path, body) in creates {
        assert_eq!(b.ask(&stranger, method, &path, body).await.0, 201, "{path}");
    }
    let from = format!("/v1/topics/t/messages?from={id}");
    let browse = refusal(b.ask(&stranger, Method::GET, &from, None).await);
    assert_eq!(browse, is(404, "not_found", Value::Null));
    let acks = Some(json!({"receipts": [&receipt]}));
    let (_, acked) = b
        .ask(&stranger, Method::POST, "/v1/subscriptions/s/ack", acks)
        .await;
    assert_eq!(acked["results"][0]["error"]["code"], "receipt_invalid");
    let receive = "/v1/subscriptions/s/receive";
    let (_, received) = b.ask(&stranger, Method::POST, receive, None).await;
    assert_eq!(received["messages"], json!([]));
    assert_eq!(a.ack(&[&receipt]).await, [json!({})]);
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn what_another_tenant_has_takes_as_long_as_what_does_not_exist() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    let stranger = fleet.key("b").await;
    node.topic_and_subscription(json!({})).await;
    let id = node.publish("secret").await;
    let nobodys = "0000zz000000000000s3";
    for (theirs, nobodys) in [
        ("/v1/topics/t".to_owned(), "/v1/topics/n".to_owned()),
        (
            format!("/v1/messages/{id}"),
            format!("/v1/messages/{nobodys}"),
        ),
    ] {
        let mut took = [Vec::new(), Vec::new()];
        for round in 0..400 {
            let path = if round % 2 == 0 { &theirs } else { &nobodys };
            let began = Instant::now();
            let (status, _) = node.ask(&stranger, Method::GET, path, None).await;
            took[round % 2].push(began.elapsed());
            assert_eq!(status, 404, "{path}");
        }
        let [theirs, nobodys] = took.map(|mut all| {
            all.sort_unstable();
            all[all.len() / 2].as_secs_f64()
        });
        assert!(
            (0.7..1.4).contains(&(theirs / nobodys)),
            "{theirs} s and {nobodys} s"
        );
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn each_route_takes_the_scope_in_its_document_and_no_other() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    node.topic_and_subscription(json!({})).await;
    let id = node.publish("body").await;
    let all = ["publish", "receive", "manage", "usage", "admin"];
    let mut keys = HashMap::new();
    for scope in all {
        keys.insert(scope, fleet.key_for("a", &[scope]).await);
    }
    for operation in operations(&node, &id, "0123456789abcdef").await {
        let Operation {
            id,
            method,
            path,
            body,
            scopes,
        } = operation;
        let others: Vec<&str> = all
            .into_iter()
            .filter(|s| !scopes.iter().any(|own| own == s))
            .collect();
        let key = fleet.key_for("a", &others).await;
        let refused = refusal(node.ask(&key, method.clone(), &path, body.clone()).await);
        assert_eq!(
            refused,
            is(403, "forbidden", Value::Null),
            "{id} with {others:?}"
        );
        for scope in &scopes {
            let mut key = keys[&**scope].clone();
            if id == "put_event_sink" {
                // Its part about usage needs the scope for usage.
                let only = node.ask(&key, method.clone(), &path, body.clone());
                assert_eq!(only.await.0, 403);
                key = fleet.key_for("a", &[scope, "usage"]).await;
            }
            let request = raw(&node, &key, method.clone(), &path);
            let status = request.json(&body).send().await.unwrap().status();
            assert!(![401, 403].contains(&status.as_u16()), "{id} with {scope}");
        }
    }
    fleet.finish([node]).await;
}

/// A request whose answer may be no JSON.
fn raw(node: &Node, key: &str, method: Method, path: &str) -> RequestBuilder {
    let url = format!("http://{}{path}", node.address);
    node.client.request(method, url).bearer_auth(key)
}

#[tokio::test]
async fn a_scope_for_some_names_opens_these_only() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    for name in ["orders.eu", "orders_eu", "secrets"] {
        node.topic(name).await;
    }
    let key = fleet
        .key_for(
            "a",
            &["publish:orders.*", "manage:orders.*", "receive:worker"],
        )
        .await;
    let ask = async |method, path: &str, body| node.ask(&key, method, path, body).await;

    let published = ask(
        Method::POST,
        "/v1/topics/orders.eu/messages",
        Some(json!("m")),
    )
    .await;
    assert_eq!(published.0, 200, "{}", published.1);
    for path in ["orders_eu", "secrets", "nothing"] {
        let path = format!("/v1/topics/{path}/messages");
        let refused = refusal(ask(Method::POST, &path, Some(json!("m"))).await);
        assert_eq!(refused, is(403, "forbidden", Value::Null), "{path}");
    }
    let (_, listed) = ask(Method::GET, "/v1/topics", None).await;
    assert_eq!(
        all(listed["items"].as_array().unwrap(), "name"),
        ["orders.eu"]
    );

    // Neither by reading nor by dead letters does a subscription lead to a topic that may not be managed.
    for link in [
        json!({"topic": "secrets"}),
        json!({"topic": "orders.eu", "dead_letter_topic": "secrets"}),
    ] {
        let refused = refusal(ask(Method::PUT, "/v1/subscriptions/orders.s", Some(link)).await);
        assert_eq!(refused, is(403, "forbidden", Value::Null));
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_key_for_the_usage_of_some_topics_reads_that_only() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    let key = fleet.key_for("a", &["usage:orders.*"]).await;
    for name in ["orders.eu", "secrets"] {
        node.topic(name).await;
        let path = format!("/v1/topics/{name}/messages");
        assert_eq!(node.post(&path, json!("m")).await.0, 200);
    }
    fleet.meter().await;

    let ask = async |key: Option<&str>, by: &str| {
        let path = format!("/v1/usage?by={by}");
        let (_, page) = match key {
            Some(key) => node.ask(key, Method::GET, &path, None).await,
            None => node.get(&path).await,
        };
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| item["messages"].as_u64().unwrap())
            .sum::<u64>()
    };
    for by in ["meter", "topic"] {
        assert_eq!(
            (ask(None, by).await, ask(Some(&key), by).await),
            (2, 1),
            "{by}"
        );
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_key_that_receives_from_a_subscription_may_fetch_the_bodies_that_it_refers_to() {
    let mut fleet = Fleet::closed().await;
    fleet.hot_limit_bytes = 1 << 20;
    let node = fleet.node_of("a").await;
    let key = fleet.key_for("a", &["receive:worker"]).await;
    for name in ["orders", "secrets"] {
        node.topic(name).await;
    }
    for name in ["worker", "other"] {
        let path = format!("/v1/subscriptions/{name}");
        node.put(&path, json!({"topic": "orders"})).await;
    }
    let large = json!({"messages": [{"body": "x".repeat(300 << 10)}]});
    node.post("/v1/topics/orders/messages/batch", large).await;

    let worker = "/v1/subscriptions/worker/receive";
    let (_, received) = node.ask(&key, Method::POST, worker, None).await;
    let url = text(&received["messages"][0]["body_url"]);
    let body = raw(&node, &key, Method::GET, &url).send().await.unwrap();
    assert_eq!(body.status(), 200);
    let other = "/v1/subscriptions/other/receive";
    let refused = refusal(node.ask(&key, Method::POST, other, None).await);
    assert_eq!(refused, is(403, "forbidden", Value::Null));
    let secret = node.post("/v1/topics/secrets/messages", json!("s")).await.1;
    let path = format!("/v1/messages/{}", text(&secret["id"]));
    let hidden = refusal(node.ask(&key, Method::GET, &path, None).await);
    assert_eq!(hidden, is(404, "not_found", Value::Null));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn guessing_keys_is_slowed_and_using_one_is_not() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    let guess = "cursus_0123456789abcdef_00";
    assert_eq!(node.get("/v1/topics").await.0, 200);

    let mut tries = 0;
    let refused = loop {
        let request = raw(&node, guess, Method::GET, "/v1/topics");
        let answer = request.send().await.unwrap();
        if answer.status() != 401 {
            break answer;
        }
        tries += 1;
        assert!(tries < 500, "nobody slows it");
    };
    assert!(tries >= 20, "{tries}");
    assert_eq!(refused.status(), 429);
    let header = |name: &str| refused.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("retry-after"), "1");
    assert_eq!(
        header("ratelimit-policy"),
        r#""guesses";qu="requests";q=20"#
    );
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["violated-policies"], json!(["guesses"]));
    assert_eq!(node.get("/v1/topics").await.0, 200, "a key that is known");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn guesses_behind_a_trusted_proxy_are_those_of_its_client() {
    let mut fleet = Fleet::closed().await;
    fleet.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let node = fleet.node().await;
    let from = async |client: &str, bearer: &str| {
        let request = raw(&node, bearer, Method::GET, "/v1/topics");
        let forwarded = format!("for=203.0.113.9, for={client}");
        let answer = request.header("forwarded", forwarded).send().await;
        answer.unwrap().status().as_u16()
    };
    let mut tries = 0;
    // Each guess is of another key.
    while from("192.0.2.1", &format!("cursus_{tries:016x}_00")).await == 401 {
        tries += 1;
        assert!(tries < 500, "nobody slows it");
    }
    assert!(tries >= 20, "{tries}");
    let unknown = "cursus_00000000ffffffff_00";
    assert_eq!(from("192.0.2.1", unknown).await, 429);
    assert_eq!(from("192.0.2.2", unknown).await, 401, "another client");
    let key = fleet.key("a").await;
    assert_eq!(from("192.0.2.3", &key).await, 200);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_node_without_keys_serves_no_page_of_another_site() {
    let mut fleet = Fleet::new().await;
    let open = fleet.node().await;
    fleet.open = false;
    let closed = fleet.node().await;
    let ask = async |node: &Node, name: &str, value: &str| {
        let request = node.request(Method::GET, "/v1/topics");
        send(request.header(name, value)).await
    };

    for (name, value) in [
        ("origin", "https://evil.example"),
        ("host", "evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let (status, problem) = ask(&open, name, value).await;
        assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
        assert_eq!(ask(&closed, name, value).await.0, 401, "its key guards it");
    }
    let page = ask(&open, "origin", "http://localhost:3000").await;
    assert_eq!(page.0, 200);
    let docs = open.request(Method::GET, "/docs/").send().await.unwrap();
    for (name, value) in [
        ("cross-origin-resource-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "frame-ancestors 'none'"),
    ] {
        assert_eq!(docs.headers()[name], value);
    }
    fleet.finish([open, closed]).await;
}
