"""The scenario of openapi/sdk with the generated Python client: scenario.py URL KEY LIMITED_KEY."""

import json
import sys
import time

from cursus_client import (
    ApiClient, ApiException, Configuration, MessagesApi, PublishBatch, PublishMessage, ReceiveRequest, SettleAction,
    SettleItem, SettleRequest, SubscriptionSettings, SubscriptionsApi, TopicSettings, TopicsApi,
)

url, key, limited_key = sys.argv[1:]
client = ApiClient(Configuration(host=url, access_token=key))
topics, subscriptions, messages = TopicsApi(client), SubscriptionsApi(client), MessagesApi(client)


def receive(subscription, count):
    """Receives until there are `count` messages, by their body."""
    found = {}
    while len(found) < count:
        more = messages.receive(subscription, ReceiveRequest(max_messages=10, wait_seconds=10)).messages
        assert more, f"no message came, only {found}"
        found |= {message.body or message.body_base64 or message.body_url: message for message in more}
    return found


def settle(subscription, message, action, **options):
    item = SettleItem(receipt=message.receipt, action=action, **options)
    [result] = messages.settle(subscription, SettleRequest(items=[item])).results
    assert result.error is None, result
    return result


# Create.
topics.put_topic("python-orders", TopicSettings(retention_seconds=3600))
topics.put_topic("python-dead")
billing = SubscriptionSettings(topic="python-orders", dead_letter_topic="python-dead", visibility_timeout_seconds=30)
assert subscriptions.put_subscription("python-billing", billing).max_attempts == 16
subscriptions.put_subscription("python-failed", SubscriptionSettings(topic="python-dead"))

# Publish text, JSON and bytes.
messages.publish("python-orders", body="two espressos", cursus_tag="coffee", idempotency_key='"python-1"')
batch = [PublishMessage(json={"cups": 2}, attributes={"table": "7"}), PublishMessage(body_base64="AP8=")]
results = messages.publish_batch("python-orders", PublishBatch(messages=batch)).results
assert [result.error for result in results] == [None, None], results

# Receive and settle in every way.
found = receive("python-billing", 3)
text, order, binary = found["two espressos"], found['{"cups": 2}'], found["AP8="]
assert text.tag == "coffee" and order.attributes == {"table": "7"} and json.loads(order.body) == {"cups": 2}
extended = settle("python-billing", text, SettleAction.EXTEND, visibility_timeout_seconds=600)
assert extended.visible_until > text.visible_until
settle("python-billing", order, SettleAction.NACK, delay_seconds=0)
again = receive("python-billing", 1)['{"cups": 2}']
assert again.attempt == 2
settle("python-billing", again, SettleAction.ACK)
text.receipt = extended.receipt
settle("python-billing", text, SettleAction.ACK)
settle("python-billing", binary, SettleAction.DEAD_LETTER, reason="no table")
assert "AP8=" in receive("python-failed", 1)

# Problems.
try:
    topics.get_topic("python-missing")
    raise AssertionError("a topic that does not exist")
except ApiException as error:
    assert error.status == 404 and error.data.code == "not_found", error
# Else urllib3 itself would wait, and try again.
limited = TopicsApi(ApiClient(Configuration(host=url, access_token=limited_key, retries=False)))
try:
    limited.put_topic("python")
    raise AssertionError("a topic beyond the quota")
except ApiException as error:
    assert error.data.code == "quota_exceeded" and int(error.headers["Retry-After"]) > 0, error

# A long poll that ends empty.
begin = time.monotonic()
assert messages.receive("python-billing", ReceiveRequest(wait_seconds=1)).messages == []
assert time.monotonic() - begin > 0.9

# 5 MB both ways.
body = "0123456789" * 500_000
messages.publish("python-orders", body=body)
[large] = receive("python-billing", 1).values()
assert messages.get_message_body(large.id) == body.encode()
settle("python-billing", large, SettleAction.ACK)
