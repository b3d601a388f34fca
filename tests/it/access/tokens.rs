//! Tokens of an issuer: what lets a caller in, what does not, keys that rotate, and an issuer that is down.

use std::time::Duration;

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
    fleet.advance(5);
    assert_eq!(status(&young, &later).await, 200, "the issuer is back");

    assert_eq!(node.delete("/v1/admin/issuers/login").await.0, 204);
    assert_eq!(status(&node, &later).await, 401, "it is shut out");
    until("everywhere", async || {
        (status(&young, &later).await == 401).then_some(())
    })
    .await;
    fleet.finish([node, young]).await;
}
