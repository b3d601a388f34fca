"""Measures the consumer loop: bench.py URL [MESSAGES]. Prints messages a second from the first to the last handled."""

import sys
import time

from cursus_client import SubscriptionSettings
from cursus_sdk import Client, Consumer

url, count = sys.argv[1], int((sys.argv[2:] or ["30000"])[0])
client = Client(url)
name = f"bench-python-{int(time.time())}"
client.topics.put_topic(name)
client.subscriptions.put_subscription(name, SubscriptionSettings(topic=name))
for _ in range(0, count, 100):
    client.publish_batch(name, ["x" * 200] * 100)

times: list[float] = []


def handler(_message):
    times.append(time.monotonic())
    if len(times) == count:
        consumer.stop()


consumer = Consumer(client, name, handler, batch=10, receivers=4, wait_seconds=1)
consumer.run()
left = client.subscriptions.get_subscription_stats(name).backlog
print(f"python: {count / (times[-1] - times[0]):,.0f} messages/s at batch 10, {left} left")
