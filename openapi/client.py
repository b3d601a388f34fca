"""Publishes, receives, extends and acks with the client that openapi-python-client makes of openapi.json.

Run by `openapi/check`, which generates the package `generated` beside this file's copy: client.py <url of a node>.
"""

import io
import sys
from datetime import timedelta

from generated import Client
from generated.api.messages import ack, change_visibility, publish, publish_batch, receive, settle
from generated.api.subscriptions import put_subscription
from generated.api.topics import delete_topic, get_topic, put_topic
from generated.models import (
    AckRequest, Problem, PublishBatch, PublishMessage, ReceiveRequest, SettleAction, SettleItem,
    SettleRequest, SubscriptionSettings, TopicSettings, VisibilityChange, VisibilityRequest,
)
from generated.types import UNSET, File

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
TOPIC, SUBSCRIPTION = "python-orders", "python-billing"


def receive_some(most: int):
    request = ReceiveRequest(max_messages=most, wait_seconds=5, visibility_timeout_seconds=30)
    return receive.sync(SUBSCRIPTION, client=client, body=request).messages


topic = put_topic.sync(TOPIC, client=client, body=TopicSettings(retention_seconds=3600))
assert topic.retention_seconds == 3600, topic
# What an update does not mention stays.
topic = put_topic.sync(TOPIC, client=client, body=TopicSettings(keep_consumed=True))
assert topic.retention_seconds == 3600 and topic.keep_consumed, topic
subscription = put_subscription.sync(SUBSCRIPTION, client=client, body=SubscriptionSettings(topic=TOPIC))
assert subscription.topic == TOPIC, subscription

# One raw message, with the same idempotency key twice, is one message.
raw = [
    publish.sync(
        TOPIC, client=client, body=File(io.BytesIO(b"\x00\xff")), cursus_tag="raw", idempotency_key='"raw-1"'
    ).id
    for _ in range(2)
]
assert raw[0] == raw[1], raw
batch = PublishBatch(messages=[PublishMessage(body="text", key="k1"), PublishMessage(json={"n": 1})])
published = publish_batch.sync(TOPIC, client=client, body=batch).results
assert all(result.error is UNSET for result in published), published

messages = {}
while len(messages) < 3:
    more = receive_some(10)
    assert more, "no more messages came"
    messages |= {message.id: message for message in more}
assert set(messages) == {raw[0], *(result.id for result in published)}
assert messages[raw[0]].body_base64 == "AP8=" and messages[raw[0]].tag == "raw", messages[raw[0]]
text = messages[published[0].id]
assert (text.body, text.key, text.attempt) == ("text", "k1", 1), text

# Extend one, ack it with the new receipt, and the rest in two other ways.
change = VisibilityChange(receipt=text.receipt, visibility_timeout_seconds=600)
extended = change_visibility.sync(SUBSCRIPTION, client=client, body=VisibilityRequest(changes=[change])).results[0]
assert extended.visible_until - text.visible_until > timedelta(seconds=500), extended
acked = ack.sync(
    SUBSCRIPTION, client=client, body=AckRequest(receipts=[extended.receipt, messages[raw[0]].receipt])
).results
assert all(result.error is UNSET for result in acked), acked
item = SettleItem(receipt=messages[published[1].id].receipt, action=SettleAction.NACK, delay_seconds=0)
settled = settle.sync(SUBSCRIPTION, client=client, body=SettleRequest(items=[item])).results
assert settled[0].error is UNSET, settled
again = receive_some(10)
assert [(message.body, message.attempt) for message in again] == [('{"n":1}', 2)], again
last = ack.sync(SUBSCRIPTION, client=client, body=AckRequest(receipts=[again[0].receipt])).results
assert last[0].error is UNSET, last

# Errors are problems: of an item, and of a whole request.
forged = ack.sync(SUBSCRIPTION, client=client, body=AckRequest(receipts=["forged"])).results
assert forged[0].error.code == "receipt_invalid", forged
refused = delete_topic.sync(TOPIC, client=client)
assert isinstance(refused, Problem) and refused.code == "conflict", refused
missing = get_topic.sync("python-missing", client=client)
assert isinstance(missing, Problem) and missing.status == 404, missing
print("python client: published, received, extended, nacked and acked")
