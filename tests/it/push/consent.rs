//! Consent of endpoints: an endpoint that is asked may refuse, or allow a rate, and without it nothing is stored.

use serde_json::{Value, json};

use super::{SUBSCRIPTION, endpoint};
use crate::harness::behaviour::Does;
use crate::harness::endpoint::Endpoint;
use crate::harness::{Fleet, is, refusal};

const ANY: &[(&str, &str)] = &[("webhook-allowed-origin", "*")];
const RATE: &[(&str, &str)] = &[
    ("webhook-allowed-origin", "*"),
    ("webhook-allowed-rate", "120"),
];
const OTHER: &[(&str, &str)] = &[("webhook-allowed-origin", "other.example")];

#[tokio::test]
async fn an_endpoint_is_asked_for_its_consent_before_it_is_stored() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let receiver = Endpoint::new().await;
    let push = json!({"url": receiver.url(), "consent": true, "limits": {"per_second": 10}});
    for refuses in [
        // First: on a connection that was used before, the request may be sent again.
        Does::Resets,
        Does::Says(204),
        Does::Says(405),
        Does::says_with(200, OTHER),
        Does::says_with(403, ANY),
    ] {
        receiver.next([refuses.clone()]);
        let refused = node.put(SUBSCRIPTION, json!({ "push": push })).await;
        let expected = is(400, "invalid_request", json!("/push/url"));
        assert_eq!(refusal(refused), expected, "{refuses:?}");
    }
    assert_eq!(node.get(SUBSCRIPTION).await.1.get("push"), None);

    for (grants, rate) in [(ANY, None), (RATE, Some(120))] {
        receiver.next([Does::says_with(200, grants)]);
        let (status, made) = node.put(SUBSCRIPTION, json!({ "push": push })).await;
        assert_eq!(status, 200, "{made}");
        let shown = made["push_status"].get("granted_per_minute");
        assert_eq!(shown.and_then(Value::as_i64), rate);
        let stored = endpoint(&fleet).await.row.granted_per_minute;
        assert_eq!(stored.map(i64::from), rate);
    }
    let sent = receiver.sent();
    assert_eq!(sent.len(), 7);
    for asked in sent {
        assert!(asked.header("webhook-request-origin").ends_with(".cursus"));
        assert_eq!(asked.headers["webhook-request-rate"], "600");
    }
    fleet.finish([node]).await;
}
