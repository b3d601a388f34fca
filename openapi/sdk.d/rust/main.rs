//! The scenario of openapi/sdk with the generated Rust client: scenario URL KEY LIMITED_KEY.

use std::collections::HashMap;
use std::io::Read;
use std::time::{Duration, Instant};

use cursus_client::apis::configuration::Configuration;
use cursus_client::apis::{Error, messages_api, subscriptions_api, topics_api};
use cursus_client::models::*;

fn configured(url: &str, key: &str) -> Configuration {
    Configuration {
        base_path: url.to_owned(),
        bearer_access_token: Some(key.to_owned()),
        ..Configuration::default()
    }
}

/// Receives until there are so many messages, by their body.
fn receive(client: &Configuration, subscription: &str, count: usize) -> HashMap<String, ReceivedMessage> {
    let mut found = HashMap::new();
    while found.len() < count {
        let request = ReceiveRequest { max_messages: Some(10), wait_seconds: Some(10), ..ReceiveRequest::new() };
        let more = messages_api::receive(client, subscription, Some(request)).unwrap().messages;
        assert!(!more.is_empty(), "no message came, only {found:?}");
        for message in more {
            let bytes = message.body_base64.clone().map(|bytes| format!("{bytes:?}"));
            let body = message.body.clone().or(bytes).or(message.body_url.clone());
            found.insert(body.unwrap(), message);
        }
    }
    found
}

fn settle(client: &Configuration, subscription: &str, item: SettleItem) -> SettleResult {
    let request = SettleRequest::new(vec![item]);
    let result = messages_api::settle(client, subscription, request).unwrap().results.remove(0);
    assert!(result.error.is_none(), "{result:?}");
    result
}

fn item(receipt: &str, action: SettleAction) -> SettleItem {
    SettleItem::new(action, receipt.to_owned())
}

/// The code of a request that fails.
fn code<T: std::fmt::Debug, E>(result: Result<T, Error<E>>) -> ErrorCode {
    let Err(Error::ResponseError(response)) = result else { panic!("the request succeeded") };
    serde_json::from_str::<Problem>(&response.content).unwrap().code
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let client = &configured(&args[1], &args[2]);

    // Create.
    let settings = TopicSettings { retention_seconds: Some(3600), ..TopicSettings::new() };
    topics_api::put_topic(client, "rust-orders", Some(settings)).unwrap();
    topics_api::put_topic(client, "rust-dead", None).unwrap();
    let billing = SubscriptionSettings {
        topic: Some("rust-orders".to_owned()),
        dead_letter_topic: Some("rust-dead".to_owned()),
        visibility_timeout_seconds: Some(30),
        ..SubscriptionSettings::new()
    };
    let made = subscriptions_api::put_subscription(client, "rust-billing", Some(billing)).unwrap();
    assert_eq!(made.max_attempts, 16);
    let failed = SubscriptionSettings { topic: Some("rust-dead".to_owned()), ..SubscriptionSettings::new() };
    subscriptions_api::put_subscription(client, "rust-failed", Some(failed)).unwrap();

    // Publish text, JSON and bytes. The generated `publish` sends a text as JSON, in quotes, so texts go in the batch.
    let text = PublishMessage {
        body: Some("two espressos".to_owned()),
        tag: Some("coffee".to_owned()),
        ..PublishMessage::new()
    };
    let order = PublishMessage {
        json: Some(Some(serde_json::json!({"cups": 2}))),
        attributes: Some(HashMap::from([("table".to_owned(), "7".to_owned())])),
        ..PublishMessage::new()
    };
    let binary = PublishMessage { body_base64: Some(vec![0, 255]), ..PublishMessage::new() };
    let batch = PublishBatch::new(vec![text, order, binary]);
    let results = messages_api::publish_batch(client, "rust-orders", batch, None, None, None).unwrap().results;
    assert!(results.len() == 3 && results.iter().all(|result| result.error.is_none()), "{results:?}");

    // Receive and settle in every way.
    let found = receive(client, "rust-billing", 3);
    let (text, order, binary) = (&found["two espressos"], &found[r#"{"cups":2}"#], &found["[0, 255]"]);
    assert_eq!((text.tag.as_deref(), order.attributes.as_ref().unwrap()["table"].as_str()), (Some("coffee"), "7"));
    let extend = SettleItem { visibility_timeout_seconds: Some(600), ..item(&text.receipt, SettleAction::Extend) };
    let extended = settle(client, "rust-billing", extend);
    assert!(extended.visible_until.unwrap() > text.visible_until);
    settle(client, "rust-billing", SettleItem { delay_seconds: Some(0), ..item(&order.receipt, SettleAction::Nack) });
    let again = &receive(client, "rust-billing", 1)[r#"{"cups":2}"#];
    assert_eq!(again.attempt, 2);
    settle(client, "rust-billing", item(&again.receipt, SettleAction::Ack));
    settle(client, "rust-billing", item(&extended.receipt.unwrap(), SettleAction::Ack));
    let reason = Some("no table".to_owned());
    settle(client, "rust-billing", SettleItem { reason, ..item(&binary.receipt, SettleAction::DeadLetter) });
    assert!(receive(client, "rust-failed", 1).contains_key("[0, 255]"));

    // Problems. The client returns no headers of an error, so its Retry-After is read by hand.
    assert_eq!(code(topics_api::get_topic(client, "rust-missing")), ErrorCode::NotFound);
    let limited = configured(&args[1], &args[3]);
    assert_eq!(code(topics_api::put_topic(&limited, "rust", None)), ErrorCode::QuotaExceeded);
    let request = limited.client.put(format!("{}/v1/topics/rust", args[1])).bearer_auth(&args[3]);
    let seconds = request.send().unwrap().headers()["retry-after"].to_str().unwrap().parse::<u32>();
    assert!(seconds.unwrap() > 0);

    // A long poll that ends empty.
    let start = Instant::now();
    let wait = ReceiveRequest { wait_seconds: Some(1), ..ReceiveRequest::new() };
    assert!(messages_api::receive(client, "rust-billing", Some(wait)).unwrap().messages.is_empty());
    assert!(start.elapsed() > Duration::from_millis(900));

    // 5 MB both ways. The batch is for shorter bodies, so it is published by hand.
    let body = "0123456789".repeat(500_000);
    let request = client.client.post(format!("{}/v1/topics/rust-orders/messages", args[1]));
    request.bearer_auth(&args[2]).body(body.clone()).send().unwrap().error_for_status().unwrap();
    let found = receive(client, "rust-billing", 1);
    let large = found.values().next().unwrap();
    let mut read = String::new();
    let mut response = messages_api::get_message_body(client, &large.id, None, None, None, None).unwrap();
    response.read_to_string(&mut read).unwrap();
    assert!(read == body);
    settle(client, "rust-billing", item(&large.receipt, SettleAction::Ack));
}
