//! Tokens of an issuer: what lets a caller in, what does not, keys that rotate, and an issuer that is down.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::issuer::{Jwks, Key, signed};
use crate::harness::{Fleet, Node, until};

const ISS: &str = "https://login.example/";
/// 2030-01-01, where the test's clock stands.
const NOW: i64 = 1_893_456_000;

/// A fleet with a tenant `shop`, whose operator has let the issuer of `keys` in.
async fn fleet_with(keys: Vec<Value>) -> (Fleet, Node, Jwks) {
    let fleet = Fleet::closed().await;
    let jwks = Jwks::serve(keys).await;
    let mut node = fleet.node().await;
    node.with_key(&fleet.key_for("operators", &["admin"]).await);
    node.put("/v1/admin/tenants/shop", json!({})).await;
    let settings = json!({
        "issuer": ISS, "jwks_url": jwks.url(), "audiences": ["cursus", "other"], "tenant": {"claim": "tenant"},
    });
    let (status, issuer) = node.put("/v1/admin/issuers/login", settings).await;
    assert_eq!(
        (status, &issuer["settings"]["clock_skew_seconds"]),
        (201, &json!(30)),
        "{issuer}"
    );
    (fleet, node, jwks)
}

fn claims() -> Value {
    json!({
        "iss": ISS, "aud": "cursus", "exp": NOW + 60, "sub": "ann", "tenant": "shop", "scope": "openid manage",
    })
}

/// The claims with one more, or another.
fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

async fn status(node: &Node, token: &str) -> u16 {
    node.ask(token, Method::GET, "/v1/topics", None).await.0
}

#[tokio::test]
async fn a_token_opens_the_tenant_of_its_claim_for_its_scopes() {
    let (rsa, ec, ed) = (Key::rsa(), Key::ec(), Key::ed());
    let keys = vec![rsa.public("r"), ec.public("c"), ed.public("d")];
    let (fleet, node, _jwks) = fleet_with(keys).await;
    for (key, id) in [(&rsa, "r"), (&ec, "c"), (&ed, "d")] {
        assert_eq!(status(&node, &key.token(id, &claims())).await, 200, "{id}");
    }
    let list = with("aud", json!(["x", "other"]));
    let token = rsa.token("r", &list);
    assert_eq!(status(&node, &token).await, 200);
    let made = node
        .ask(&token, Method::PUT, "/v1/topics/t", Some(json!({})))
        .await;
    assert_eq!(made.0, 201, "{}", made.1);
    let publish = node
        .ask(
            &token,
            Method::POST,
            "/v1/topics/t/messages",
            Some(json!("m")),
        )
        .await;
    assert_eq!(publish.0, 403, "{}", publish.1);
    let (_, log) = node.get("/v1/admin/audit?tenant=shop&limit=1").await;
    assert_eq!(log["items"][0]["actor"], "token:login/ann");

    let nowhere = rsa.token("r", &with("tenant", "nowhere"));
    let (code, problem) = node.ask(&nowhere, Method::GET, "/v1/topics", None).await;
    assert_eq!((code, &problem["code"]), (403, &json!("forbidden")));
    node.post("/v1/admin/tenants/shop/suspend", json!({})).await;
    assert_eq!(status(&node, &token).await, 403, "a suspended tenant");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_token_that_is_wrong_in_anything_is_refused() {
    let (rsa, ec, foreign) = (Key::rsa(), Key::ec(), Key::rsa());
    let public = rsa.public("r");
    let (fleet, node, _jwks) = fleet_with(vec![public.clone(), ec.public("c")]).await;
    let mut without_exp = claims();
    without_exp.as_object_mut().unwrap().remove("exp");
    let mut without_aud = claims();
    without_aud.as_object_mut().unwrap().remove("aud");
    let header = |algorithm: &str| json!({"typ": "JWT", "alg": algorithm, "kid": "r"});
    let hmac = |message: &[u8]| {
        // The classic: the public key, which everybody knows, as a secret.
        let key = aws_lc_rs::hmac::Key::new(
            aws_lc_rs::hmac::HMAC_SHA256,
            public["n"].as_str().unwrap().as_bytes(),
        );
        aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
    };
    let good = rsa.token("r", &claims());
    let (head, signature) = (
        good.rsplit_once('.').unwrap().0,
        good.rsplit_once('.').unwrap().1,
    );
    let other = rsa.token("r", &with("tenant", "operators"));
    let other = other.rsplit_once('.').unwrap().0.to_owned();
    let wrong = [
        ("expired", rsa.token("r", &with("exp", NOW - 31))),
        ("not yet valid", rsa.token("r", &with("nbf", NOW + 31))),
        ("no exp", rsa.token("r", &without_exp)),
        ("exp is no number", rsa.token("r", &with("exp", "soon"))),
        ("another audience", rsa.token("r", &with("aud", "billing"))),
        ("no audience", rsa.token("r", &without_aud)),
        (
            "another issuer",
            rsa.token("r", &with("iss", "https://evil.example/")),
        ),
        ("signed by a stranger", foreign.token("r", &claims())),
        ("another kind of key", ec.token("r", &claims())),
        ("none", signed(&header("none"), &claims(), |_| Vec::new())),
        (
            "none in capitals",
            signed(&header("NONE"), &claims(), |_| Vec::new()),
        ),
        ("hmac", signed(&header("HS256"), &claims(), hmac)),
        (
            "rs512",
            signed(&header("RS512"), &claims(), |_| vec![0; 256]),
        ),
        ("no signature", format!("{head}.")),
        (
            "the signature of other claims",
            format!("{other}.{signature}"),
        ),
        ("no token", "a.b.c".to_owned()),
    ];
    for chunk in wrong.chunks(8) {
        for (what, token) in chunk {
            assert_eq!(status(&node, token).await, 401, "{what}");
        }
        // A caller with this many wrong tokens at once is slowed: that is another test.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Clocks may be apart by the skew.
    assert_eq!(
        status(&node, &rsa.token("r", &with("exp", NOW - 29))).await,
        200
    );
    assert_eq!(
        status(&node, &rsa.token("r", &with("nbf", NOW + 29))).await,
        200
    );
    assert_eq!(status(&node, &good).await, 200);
    fleet.advance(91);
    assert_eq!(status(&node, &good).await, 401, "expired since it was seen");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn keys_rotate_and_an_issuer_that_is_down_is_believed_for_a_day() {
    let (old, new) = (Key::ed(), Key::ed());
    let (fleet, node, jwks) = fleet_with(vec![old.public("old")]).await;
    let token = |key: &Key, id: &str, exp: i64| key.token(id, &with("exp", exp));
    assert_eq!(status(&node, &token(&old, "old", NOW + 60)).await, 200);

    jwks.rotate(vec![new.public("new")]);
    fleet.advance(5);
    assert_eq!(status(&node, &token(&new, "new", NOW + 60)).await, 200);
    let asked = jwks.asked();
    for exp in 0..10 {
        let unknown = token(&old, "unheard of", NOW + 60 + exp);
        assert_eq!(status(&node, &unknown).await, 401);
    }
    assert_eq!(
        jwks.asked(),
        asked,
        "made up keys do not make a node ask again and again"
    );
    assert_eq!(
        status(&node, &token(&old, "old", NOW + 61)).await,
        401,
        "it is gone"
    );

    jwks.set_down(true);
    let day = 86_400;
    fleet.advance(day - 100);
    let late = token(&new, "new", NOW + 2 * i64::try_from(day).unwrap());
    assert_eq!(status(&node, &late).await, 200);
    // A node that starts meanwhile has the keys from the others.
    let young = fleet.node().await;
    assert_eq!(status(&young, &late).await, 200);
    fleet.advance(200);
    let later = token(&new, "new", NOW + 3 * i64::try_from(day).unwrap());
    let (code, problem) = young.ask(&later, Method::GET, "/v1/topics", None).await;
    assert_eq!((code, &problem["code"]), (503, &json!("unavailable")));
    jwks.set_down(false);
    // The longest pause between two requests to an issuer that failed.
    fleet.advance(300);
    assert_eq!(status(&young, &later).await, 200, "the issuer is back");

    assert_eq!(node.delete("/v1/admin/issuers/login").await.0, 204);
    assert_eq!(status(&node, &later).await, 401, "it is shut out");
    until("everywhere", async || {
        (status(&young, &later).await == 401).then_some(())
    })
    .await;
    fleet.finish([node, young]).await;
}

#[tokio::test]
async fn an_issuer_gives_no_more_than_its_ceiling() {
    let key = Key::ed();
    let (fleet, node, jwks) = fleet_with(vec![key.public("k")]).await;
    let wide = key.token("k", &with("scope", "admin manage"));
    // With a claim for the tenant, and bound to one.
    for settings in [None, Some(of_shop(&jwks, None))] {
        if let Some(settings) = settings {
            let (_, issuer) = node.put("/v1/admin/issuers/login", settings).await;
            let tame = json!(["publish", "receive", "manage", "usage"]);
            assert_eq!(issuer["settings"]["scopes"], tame, "{issuer}");
        }
        assert_eq!(
            status(&node, &wide).await,
            200,
            "what is inside the ceiling"
        );
        for (method, path) in [
            (Method::GET, "/v1/admin/tenants"),
            (Method::PUT, "/v1/admin/tenants/mine"),
            (Method::POST, "/v1/admin/tenants/operators/keys"),
            (Method::POST, "/v1/admin/tenants/shop/keys"),
            (Method::GET, "/v1/admin/issuers"),
            (Method::PUT, "/v1/admin/issuers/login"),
            (Method::GET, "/v1/admin/audit?tenant=shop"),
        ] {
            let body = (method != Method::GET).then(|| json!({}));
            let (code, problem) = node.ask(&wide, method, path, body).await;
            assert_eq!(
                (code, &problem["code"]),
                (403, &json!("forbidden")),
                "{path}"
            );
        }
    }
    let (_, log) = node.get("/v1/admin/audit?tenant=shop").await;
    let entries = log["items"].as_array().unwrap().iter();
    let refused: Vec<_> = entries
        .filter(|entry| entry["action"] == "token.refused")
        .collect();
    assert_eq!(refused.len(), 1, "one entry stands for all: {log}");
    assert_eq!(refused[0]["actor"], "token:login/ann");
    assert_eq!(refused[0]["target"], "login");
    assert_eq!(
        refused[0]["detail"]["scopes_above_ceiling"],
        json!(["admin"])
    );

    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_claim_is_cut_to_the_ceiling_of_its_issuer() {
    let key = Key::ed();
    let (fleet, node, jwks) = fleet_with(vec![key.public("k")]).await;
    let wide = key.token("k", &with("scope", "admin manage"));
    let put = async |scopes: &[&str]| {
        let settings = of_shop(&jwks, Some(scopes));
        node.put("/v1/admin/issuers/login", settings).await
    };
    put(&["admin:shop", "manage:a.*"]).await;
    let ask = async |method, path, body| node.ask(&wide, method, path, body).await.0;
    assert_eq!(ask(Method::GET, "/v1/admin/tenants/shop", None).await, 200);
    assert_eq!(
        ask(Method::GET, "/v1/admin/tenants/operators", None).await,
        403
    );
    assert_eq!(ask(Method::GET, "/v1/admin/issuers", None).await, 403);
    assert_eq!(
        ask(Method::PUT, "/v1/topics/a.b", Some(json!({}))).await,
        201
    );
    assert_eq!(ask(Method::PUT, "/v1/topics/b", Some(json!({}))).await, 403);
    // What the operator lists is given.
    put(&["admin"]).await;
    assert_eq!(ask(Method::GET, "/v1/admin/issuers", None).await, 200);
    fleet.finish([node]).await;
}

/// Settings of an issuer that is bound to the tenant `shop`.
fn of_shop(jwks: &Jwks, scopes: Option<&[&str]>) -> Value {
    let mut settings = json!({
        "issuer": ISS, "jwks_url": jwks.url(), "audiences": ["cursus"], "tenant": {"name": "shop"},
    });
    if let Some(scopes) = scopes {
        settings["scopes"] = json!(scopes);
    }
    settings
}

#[tokio::test]
async fn the_header_of_a_token_is_read_as_its_standards_say() {
    let (named, nameless) = (Key::ed(), Key::rsa());
    let mut public = nameless.public("");
    public.as_object_mut().unwrap().remove("kid");
    let mut modern = named.public("k");
    modern["alg"] = json!("Ed25519");
    let (fleet, node, _jwks) = fleet_with(vec![modern, public]).await;
    for header in [
        json!({"alg": "EdDSA", "kid": "k"}),
        json!({"alg": "Ed25519", "kid": "k", "typ": "at+jwt"}),
        json!({"alg": "Ed25519"}),
    ] {
        let token = named.headed(&header, &claims());
        assert_eq!(status(&node, &token).await, 200, "{header}");
    }
    for header in [
        json!({"alg": "RS256"}),
        json!({"alg": "RS256", "kid": "any"}),
    ] {
        let token = nameless.headed(&header, &claims());
        assert_eq!(
            status(&node, &token).await,
            200,
            "a key without an id: {header}"
        );
    }
    for header in [
        json!({"alg": "EdDSA", "kid": "k", "crit": ["exp"], "exp": 1}),
        json!({"alg": "EdDSA", "kid": "k", "crit": []}),
        json!({"alg": "EdDSA", "kid": "k", "crit": ["b64"], "b64": false}),
        json!({"alg": "EdDSA", "kid": 7}),
        json!({"alg": "EdDSA", "kid": "k", "typ": "logout+jwt"}),
        json!({"alg": "Ed448", "kid": "k"}),
    ] {
        let token = named.headed(&header, &claims());
        assert_eq!(status(&node, &token).await, 401, "{header}");
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_issuer_that_hangs_is_asked_once_for_all_who_wait() {
    let (known, unknown) = (Key::ed(), Key::ed());
    let (fleet, node, jwks) = fleet_with(vec![known.public("k")]).await;
    assert_eq!(status(&node, &known.token("k", &claims())).await, 200);
    jwks.hang();
    fleet.advance(5);
    let asked = jwks.asked();
    let started = Instant::now();
    let waiting = (0..8).map(|n| {
        let token = unknown.token(&format!("new{n}"), &claims());
        let node = &node;
        async move { status(node, &token).await }
    });
    let statuses = futures_util::future::join_all(waiting).await;
    assert_eq!(statuses, [401; 8]);
    assert!(
        started.elapsed() < Duration::from_secs(9),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(jwks.asked(), asked + 1);
    // The next ones do not wait at all.
    let started = Instant::now();
    assert_eq!(status(&node, &unknown.token("newer", &claims())).await, 401);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(status(&node, &known.token("k", &with("jti", 1))).await, 200);
    assert_eq!(jwks.asked(), asked + 1);
    fleet.finish([node]).await;
}
