"""Publishes ten orders and consumes them: orders.py URL."""

import signal
import sys

from cursus_client import SubscriptionSettings
from cursus_sdk import Client, Consumer, DeadLetter, Message, Problem

client = Client(sys.argv[1])
client.topics.put_topic("example-orders")
client.topics.put_topic("example-failed")
settings = SubscriptionSettings(topic="example-orders", dead_letter_topic="example-failed", max_attempts=5)
client.subscriptions.put_subscription("example-billing", settings)

for order in range(10):
    client.publish("example-orders", {"order": order}, tag="created", attributes={"shop": "north"})

billed = []


def bill(message: Message) -> None:
    order = message.json()["order"]
    if order == 7:
        raise DeadLetter("order 7 is cursed")
    billed.append(order)
    if len(billed) == 9:
        consumer.stop()


consumer = Consumer(client, "example-billing", bill, concurrency=4, wait_seconds=1)
signal.signal(signal.SIGTERM, consumer.stop)
consumer.run()
print("billed", sorted(billed))

try:
    client.topics.get_topic("no-such-topic")
except Problem as problem:
    print("problem", problem.code)
print("topics", [topic.name for topic in client.each(client.topics.list_topics, limit=1) if "example" in topic.name])
