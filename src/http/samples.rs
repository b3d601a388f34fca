//! The sample of each request body in the document, for readers and for the button that sends it. A sample works as it is,
//! on names that exist only after samples were sent: it changes nothing of what is there. A test sends them all.

use serde_json::{Value, json};

/// The sample of an operation whose body is JSON.
pub(super) fn json_body(operation_id: &str) -> Option<Value> {
    Some(match operation_id {
        "put_topic" => json!({"retention_seconds": 345_600, "keep_consumed": false}),
        "put_subscription" => json!({"topic": "orders", "visibility_timeout_seconds": 30}),
        "publish_batch" => json!({"messages": [
            {"json": {"order": 1042, "total": "19.90"}, "tag": "created", "key": "1042"},
            {"body": "plain text", "attributes": {"source": "shop"}}
        ]}),
        "receive" => json!({"max_messages": 10, "wait_seconds": 5}),
        "ack" => json!({"receipts": [RECEIPT]}),
        "change_visibility" => {
            json!({"changes": [{"receipt": RECEIPT, "visibility_timeout_seconds": 120}]})
        }
        "settle" => json!({"items": [
            {"receipt": RECEIPT, "action": "ack"},
            {"receipt": RECEIPT, "action": "nack", "delay_seconds": 30}
        ]}),
        "rotate_push_secret" => json!({"overlap_seconds": 86_400}),
        "resend" => json!({"from": "2030-01-01T00:00:00Z"}),
        "put_budget" => {
            json!({"amount": "100.00", "alert_percents": [50, 80, 100], "hard_stop": false})
        }
        "put_event_sink" => json!({"topic": "orders", "granularity": "hour"}),
        "put_tenant" => json!({}),
        "put_tenant_quota" => {
            json!({"requests_per_second": {"guaranteed": 100, "ceiling": 500}, "topics": 50})
        }
        "suspend_tenant" => json!({"reason": "the invoice of October is not paid"}),
        "create_key" => {
            json!({"name": "shop backend", "scopes": ["publish:orders"], "expires_in_seconds": 7_776_000})
        }
        "rotate_key" => json!({"overlap_seconds": 86_400}),
        "put_issuer" => json!({
            "issuer": "https://login.example/",
            "jwks_url": "https://login.example/jwks.json",
            "audiences": ["cursus"],
            "tenant": {"name": "acme"}
        }),
        "put_plan_version" => json!({
            "currency": "EUR",
            "prices": {"publish_units": {"per": "1000000", "unit_price": "0.40"}}
        }),
        _ => return None,
    })
}

/// Where a receipt of a received message goes. A settle reports it as invalid, item by item.
const RECEIPT: &str = "receipt-of-a-received-message";

/// The sample of a raw publish.
pub(super) const TEXT_BODY: &str = "Hello";
