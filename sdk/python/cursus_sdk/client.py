"""Requests with retries, typed problems, and the verbs of messages. Thread-safe: one client serves a whole program.

Messages take the short way, without the generated models: they are what a consumer makes thousands of a second.
"""

from __future__ import annotations

import base64
import json
import os
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Mapping, Sequence, Union
from urllib.parse import quote, urlsplit

import cursus_client
import urllib3
from cursus_client import rest

Body = Union[str, bytes, Mapping[str, Any], Sequence[Any], int, float, bool, None]


class Problem(Exception):
    """An answer that is an error (RFC 9457). `code` is stable; `retry_after` is in seconds."""

    def __init__(self, problem: Mapping[str, Any], retry_after: float | None = None):
        self.status: int = problem.get("status", 0)
        self.code: str = problem.get("code", "unknown")
        self.title: str = problem.get("title", "")
        self.detail: str = problem.get("detail", "")
        self.retryable: bool = problem.get("retryable", False)
        self.errors: list[dict[str, str]] = problem.get("errors", [])
        self.retry_after = retry_after
        super().__init__(f"{self.status} {self.code}: {self.detail}")


@dataclass
class Message:
    """A received message. The body is in `data`; `Client.body` reads one that was too large to come along."""

    id: str
    topic: str
    receipt: str
    attempt: int
    content_type: str
    data: bytes | None
    published_at: str
    visible_until: str
    tag: str | None = None
    key: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, m: Mapping[str, Any]) -> Message:
        text, binary = m.get("body"), m.get("body_base64")
        data = text.encode() if text is not None else base64.b64decode(binary) if binary is not None else None
        return cls(
            m["id"], m["topic"], m["receipt"], m["attempt"], m["content_type"], data, m["published_at"],
            m["visible_until"], m.get("tag"), m.get("key"), m.get("attributes", {}),
        )

    @property
    def text(self) -> str:
        return self._whole().decode()

    def json(self) -> Any:
        return json.loads(self._whole())

    def _whole(self) -> bytes:
        if self.data is None:
            raise ValueError("the body is large: read it with client.body(message)")
        return self.data


class Client:
    """A service at `url`. The key is that of the environment (`CURSUS_KEY`) unless it is given.

    A request is tried again while its problem is retryable or no answer came, up to `retries` times: after
    `Retry-After`, else after a random time that doubles. One that would wait for more than `max_wait_seconds` fails.
    """

    def __init__(
        self, url: str, key: str | None = None, *, retries: int = 5, max_wait_seconds: float = 60,
        timeout_seconds: float = 60, connections: int = 32,
    ):
        self.url = url.rstrip("/")
        self.retries = retries
        self.max_wait_seconds = max_wait_seconds
        self.timeout_seconds = timeout_seconds
        key = os.environ.get("CURSUS_KEY") if key is None else key
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._pool = urllib3.PoolManager(maxsize=connections, retries=False)
        generated = _Generated(self)
        self.topics = cursus_client.TopicsApi(generated)
        self.subscriptions = cursus_client.SubscriptionsApi(generated)
        self.messages = cursus_client.MessagesApi(generated)
        self.push = cursus_client.PushApi(generated)
        self.usage = cursus_client.UsageApi(generated)
        self.budgets = cursus_client.BudgetsApi(generated)
        self.events = cursus_client.EventsApi(generated)
        self.quota = cursus_client.QuotaApi(generated)
        self.admin = cursus_client.AdminApi(generated)

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None,
        timeout: Any = None,
    ) -> urllib3.BaseHTTPResponse:
        """Sends a request, again if need be, and returns the answer; one that is no success is raised as a `Problem`."""
        headers = {**self._headers, **(headers or {})}
        for attempt in range(self.retries + 1):
            is_last = attempt == self.retries
            try:
                response = self._pool.request(
                    method, self.url + path, body=body, headers=headers, timeout=timeout or self.timeout_seconds
                )
            except urllib3.exceptions.HTTPError:
                if is_last:
                    raise
                self._wait(attempt, None)
                continue
            if response.status < 400:
                return response
            problem = _problem(response)
            wait = problem.retry_after or 0
            if is_last or not problem.retryable or wait > self.max_wait_seconds:
                raise problem
            self._wait(attempt, problem.retry_after)
        raise AssertionError("unreachable")

    def publish(
        self, topic: str, body: Body, *, content_type: str | None = None, attributes: Mapping[str, str] | None = None,
        tag: str | None = None, key: str | None = None, idempotency_key: str | None = None,
    ) -> str:
        """Publishes text, bytes, or a value as JSON, and returns the id. A repeated attempt stores nothing twice."""
        if isinstance(body, bytes):
            data, kind = body, "application/octet-stream"
        elif isinstance(body, str):
            data, kind = body.encode(), "text/plain"
        else:
            data, kind = json.dumps(body).encode(), "application/json"
        headers = {"content-type": content_type or kind, "idempotency-key": f'"{idempotency_key or uuid.uuid4()}"'}
        options = {"cursus-tag": tag, "cursus-key": key}
        headers.update({name: value for name, value in options.items() if value is not None})
        headers.update({f"cursus-attr-{name}": value for name, value in (attributes or {}).items()})
        return self.request("POST", f"/v1/topics/{quote(topic)}/messages", data, headers).json()["id"]

    def publish_batch(self, topic: str, messages: Sequence[Mapping[str, Any] | str]) -> list[str | Problem]:
        """Publishes up to 100 messages, each a text or fields of `PublishMessage`; one id or problem for each."""
        items = [{"body": message} if isinstance(message, str) else message for message in messages]
        headers = {"idempotency-key": f'"{uuid.uuid4()}"'}
        results = self._post(f"/v1/topics/{quote(topic)}/messages/batch", {"messages": items}, headers)["results"]
        return [result.get("id") or Problem(result["error"]) for result in results]

    def receive(
        self, subscription: str, *, max_messages: int = 1, wait_seconds: int = 0,
        visibility_timeout_seconds: int | None = None,
    ) -> list[Message]:
        """Receives up to `max_messages`; waits up to `wait_seconds` for the first."""
        request = {"max_messages": max_messages, "wait_seconds": wait_seconds}
        if visibility_timeout_seconds is not None:
            request["visibility_timeout_seconds"] = visibility_timeout_seconds
        timeout = self.timeout_seconds + wait_seconds
        answer = self._post(f"/v1/subscriptions/{quote(subscription)}/receive", request, {}, timeout)
        return [Message.read(message) for message in answer["messages"]]

    def settle(self, subscription: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Settles up to 100 messages; one result for each, with an `error` if it failed."""
        return self._post(f"/v1/subscriptions/{quote(subscription)}/settle", {"items": items}, {})["results"]

    def ack(self, subscription: str, message: Message) -> None:
        self._settle_one(subscription, message, action="ack")

    def nack(self, subscription: str, message: Message, delay_seconds: int = 0) -> None:
        self._settle_one(subscription, message, action="nack", delay_seconds=delay_seconds)

    def dead_letter(self, subscription: str, message: Message, reason: str) -> None:
        self._settle_one(subscription, message, action="dead_letter", reason=reason)

    def extend(self, subscription: str, message: Message, seconds: int) -> None:
        """Hides the message for so many seconds from now. Its receipt may change."""
        result = self._settle_one(subscription, message, action="extend", visibility_timeout_seconds=seconds)
        message.receipt = result.get("receipt", message.receipt)
        message.visible_until = result.get("visible_until", message.visible_until)

    def body(self, message: Message | str) -> bytes:
        """The body of a message or of a message's id, also of one that was too large to come along."""
        if isinstance(message, Message) and message.data is not None:
            return message.data
        message_id = message.id if isinstance(message, Message) else message
        return self.request("GET", f"/v1/messages/{quote(message_id)}/body").data

    def each(self, list_page: Callable[..., Any], *args: Any, **options: Any) -> Iterator[Any]:
        """All items of a list, page by page: `client.each(client.topics.list_topics)`."""
        after = None
        while True:
            page = list_page(*args, after=after, **options)
            yield from page.items
            after = page.next
            if after is None:
                return

    def _settle_one(self, subscription: str, message: Message, **item: Any) -> dict[str, Any]:
        result = self.settle(subscription, [{"receipt": message.receipt, **item}])[0]
        if "error" in result:
            raise Problem(result["error"])
        return result

    def _post(self, path: str, body: Any, headers: Mapping[str, str], timeout: float | None = None) -> Any:
        headers = {"content-type": "application/json", **headers}
        return json.loads(self.request("POST", path, json.dumps(body), headers, timeout).data)

    def _wait(self, attempt: int, retry_after: float | None) -> None:
        # Not all at once: many clients are told the same.
        time.sleep(random.uniform(1, 1.2) * retry_after if retry_after else random.uniform(0.05, 0.1) * 2**attempt)


def _problem(response: urllib3.BaseHTTPResponse) -> Problem:
    after = response.headers.get("retry-after", "")
    seconds = float(after) if after.isdigit() else None
    try:
        return Problem(response.json(), seconds)
    except ValueError:  # A proxy between says it in its own words.
        retryable = response.status in (429, 502, 503, 504)
        detail = response.data[:200].decode(errors="replace")
        return Problem({"status": response.status, "detail": detail, "retryable": retryable}, seconds)


class _Generated(cursus_client.ApiClient):
    """The generated client with the requests of `Client`, so that it tries again and raises problems as well."""

    def __init__(self, client: Client):
        super().__init__(cursus_client.Configuration(host=client.url))
        self._client = client

    def call_api(
        self, method: str, url: str, header_params: Any = None, body: Any = None, post_params: Any = None,
        _request_timeout: Any = None,
    ) -> rest.RESTResponse:
        headers = {name.lower(): str(value) for name, value in (header_params or {}).items()}
        parts = urlsplit(url)
        if method == "POST" and parts.path.endswith(("/messages", "/messages/batch")):
            headers.setdefault("idempotency-key", f'"{uuid.uuid4()}"')
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        path = url[len(self._client.url):]
        return rest.RESTResponse(self._client.request(method, path, body, headers, _request_timeout))
