"""Tests of cursus-sdk against a real node: test_sdk.py URL KEY LIMITED_KEY. Run by `sdk/check`."""

import base64
import http.server
import json
import sys
import threading
import time
import unittest

from cursus_client import SubscriptionSettings
from cursus_sdk import Client, Consumer, DeadLetter, Problem, Retry, WebhookVerificationError, verify
from standardwebhooks import Webhook

URL, KEY, LIMITED_KEY = sys.argv[1:]
client = Client(URL, KEY)


def subscription(name, **settings):
    client.topics.put_topic(name)
    client.topics.put_topic(f"{name}-dead")
    settings = {"topic": name, "dead_letter_topic": f"{name}-dead", **settings}
    client.subscriptions.put_subscription(name, SubscriptionSettings(**settings))
    return name


def consume(name, handler, until, **options):
    """Consumes until `until()` holds, for 20 s at most."""
    consumer = Consumer(client, name, handler, wait_seconds=1, **options)
    thread = threading.Thread(target=consumer.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not until() and time.monotonic() < deadline:
        time.sleep(0.02)
    consumer.stop()
    thread.join(20)
    assert not thread.is_alive(), "the consumer did not stop"
    assert until(), "the consumer did not get there"


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answers `failures` first, and then the node's answer; records the idempotency keys."""

    failures, keys = [], []
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.keys.append(self.headers["idempotency-key"])
        if self.failures and (failure := self.failures.pop(0)) != 200:
            # 0: the node gets the request, and the client no answer.
            if failure == 0:
                client.request("POST", self.path, body, dict(self.headers))
                self.close_connection = True
                return
            return self.answer(failure, json.dumps({"status": failure, "code": "unavailable", "retryable": True}).encode())
        headers = {"content-type": self.headers["content-type"], "idempotency-key": self.headers["idempotency-key"]}
        self.answer(200, client.request("POST", self.path, body, headers).data)

    def answer(self, status, body):
        self.send_response(status)
        if status != 200:
            self.send_header("retry-after", "1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Tests(unittest.TestCase):
    def test_a_handler_that_returns_acks_and_one_that_raises_gets_the_message_again(self):
        name, seen = subscription("sdk-python"), []
        client.publish_batch(name, [str(n) for n in range(20)])

        def handler(message):
            seen.append((message.text, message.attempt))
            if message.text == "3" and message.attempt == 1:
                raise RuntimeError("once")
            if message.text == "4" and message.attempt == 1:
                raise Retry(0)
            if message.text == "5":
                raise DeadLetter("five is bad")

        consume(name, handler, lambda: len(seen) == 22)
        self.assertEqual(sorted(seen), sorted([(str(n), 1) for n in range(20)] + [("3", 2), ("4", 2)]))
        self.assertEqual(client.subscriptions.get_subscription_stats(name).backlog, 0)
        [dead] = client.each(client.messages.browse, f"{name}-dead")
        self.assertEqual(dead.body, "5")

    def test_a_message_stays_hidden_while_its_handler_runs(self):
        name, seen = subscription("sdk-python-slow"), []
        client.publish(name, "slow")

        def handler(message):
            seen.append(message.attempt)
            time.sleep(5)
            seen.append("done")

        consume(name, handler, lambda: "done" in seen, visibility_timeout_seconds=2)
        self.assertEqual(seen, [1, "done"])
        self.assertEqual(client.subscriptions.get_subscription_stats(name).backlog, 0)

    def test_a_stop_finishes_what_runs_and_gives_back_what_has_not_begun(self):
        name, seen = subscription("sdk-python-stop"), []
        client.publish_batch(name, [str(n) for n in range(10)])

        def handler(message):
            seen.append(message.text)
            time.sleep(1)

        consume(name, handler, lambda: len(seen) >= 2, concurrency=2)
        stats = client.subscriptions.get_subscription_stats(name)
        self.assertEqual((stats.backlog, stats.in_flight), (10 - len(seen), 0))

    def test_a_publish_is_repeated_until_it_is_answered_and_stored_once(self):
        name = subscription("sdk-python-retries")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        through = Client(f"http://127.0.0.1:{server.server_port}", KEY)
        Proxy.failures[:] = [503, 0, 503, 200]
        begin = time.monotonic()
        through.publish(name, "once")
        self.assertGreater(time.monotonic() - begin, 2)  # Two waits of `Retry-After: 1`.
        self.assertEqual((len(Proxy.keys), len(set(Proxy.keys))), (4, 1))
        self.assertEqual(client.topics.get_topic_stats(name).published, 1)
        # The generated client does the same.
        Proxy.failures[:] = [0, 200]
        through.messages.publish(name, body="twice")
        self.assertEqual(client.topics.get_topic_stats(name).published, 2)
        server.shutdown()

    def test_problems_are_typed_and_a_long_wait_is_not_waited_for(self):
        with self.assertRaises(Problem) as missing:
            client.topics.get_topic("sdk-missing")
        self.assertEqual((missing.exception.status, missing.exception.code), (404, "not_found"))
        with self.assertRaises(Problem) as full:
            Client(URL, LIMITED_KEY, max_wait_seconds=5).topics.put_topic("sdk-more")
        self.assertEqual((full.exception.code, full.exception.retry_after), ("quota_exceeded", 60))
        with self.assertRaises(Problem) as wrong:
            client.receive("sdk-python", max_messages=1000)
        self.assertEqual(wrong.exception.errors[0]["pointer"], "/max_messages")

    def test_bodies_of_every_kind_come_back(self):
        name = subscription("sdk-python-bodies")
        large = bytes(range(256)) * 20_000
        for body in ["text", b"\x00\xff", {"n": 1}, large]:
            client.publish(name, body, tag="t", key="k", attributes={"a": "b"})
        found = []
        while len(found) < 4:
            found += client.receive(name, max_messages=10, wait_seconds=5)
        self.assertEqual([client.body(m) for m in found], [b"text", b"\x00\xff", b'{"n": 1}', large])
        self.assertEqual({(m.tag, m.key, m.attributes["a"]) for m in found}, {("t", "k", "b")})
        client.extend(name, found[0], 600)
        client.nack(name, found[1])
        client.dead_letter(name, found[2], "no reason")
        client.ack(name, found[0])
        with self.assertRaises(Problem):
            client.ack(name, found[2])

    def test_a_list_is_iterated_over_page_by_page(self):
        for n in range(5):
            client.topics.put_topic(f"sdk-python-page-{n}")
        names = [topic.name for topic in client.each(client.topics.list_topics, limit=2)]
        self.assertEqual([n for n in names if n.startswith("sdk-python-page")], [f"sdk-python-page-{n}" for n in range(5)])

    def test_a_webhook_is_verified_with_either_secret_and_whatever_its_bytes(self):
        import datetime
        import hashlib
        import hmac

        secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        other = "whsec_" + base64.b64encode(b"o" * 24).decode()
        now = datetime.datetime.now(tz=datetime.timezone.utc)
        stamp = str(int(now.timestamp()))
        for body in [b'{"a":1}', b"text", b"\x00\xff"]:
            signed = f"msg_1.{stamp}.".encode() + body
            digest = hmac.new(base64.b64decode(secret[6:]), signed, hashlib.sha256).digest()
            signature = "v1," + base64.b64encode(digest).decode()
            if body != b"\x00\xff":
                self.assertEqual(signature, Webhook(secret).sign("msg_1", now, body.decode()))
            headers = {"Webhook-Id": "msg_1", "Webhook-Timestamp": stamp, "Webhook-Signature": signature}
            self.assertEqual(verify([other, secret], headers, body).body, body)
            for wrong, sent in [(other, headers), (secret, {**headers, "Webhook-Timestamp": "1000000000"}), (secret, {})]:
                with self.assertRaises(WebhookVerificationError):
                    verify(wrong, sent, body)
            with self.assertRaises(WebhookVerificationError):
                verify(secret, headers, body + b"x")


unittest.main(argv=["test_sdk"])
