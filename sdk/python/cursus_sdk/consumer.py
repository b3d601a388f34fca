"""The consumer loop: receives batches, runs a handler for each message in threads, and settles what the handler did.

While a handler runs its message is kept hidden; when it returns the message is acked, and when it raises the message is
nacked for a time that doubles with each attempt. Delivery is at-least-once: a handler may see a message again.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from typing import Any, Callable

from .client import Client, Message, Problem

log = logging.getLogger("cursus_sdk")
SETTLE_MAX = 100


class Retry(Exception):
    """Raised by a handler that wants its message again after so many seconds."""

    def __init__(self, delay_seconds: int):
        super().__init__(f"again in {delay_seconds} s")
        self.delay_seconds = delay_seconds


class DeadLetter(Exception):
    """Raised by a handler whose message will never succeed; the text is the reason."""


class Consumer:
    """Runs `handler` for the messages of a subscription, `concurrency` at a time. `receivers` ask for messages at a time;
    at most `receivers * batch` messages wait here for a handler."""

    def __init__(
        self, client: Client, subscription: str, handler: Callable[[Message], Any], *, concurrency: int = 10,
        batch: int = 10, receivers: int = 2, wait_seconds: int = 10, visibility_timeout_seconds: int = 30,
        max_backoff_seconds: int = 600,
    ):
        if concurrency < 1 or receivers < 1 or not 1 <= batch <= 100 or visibility_timeout_seconds < 2:
            raise ValueError("concurrency and receivers are 1 or more, batch 1 to 100, visibility_timeout_seconds 2 or more")
        self.client, self.subscription, self.handler = client, subscription, handler
        self.concurrency, self.batch, self.receivers, self.wait_seconds = concurrency, batch, receivers, wait_seconds
        self.visibility_timeout_seconds, self.max_backoff_seconds = visibility_timeout_seconds, max_backoff_seconds
        self._stopping = threading.Event()
        self._free = threading.Semaphore(concurrency + receivers * batch)  # Messages that may be held here.
        self._reserving = threading.Lock()
        self._todo: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Message, dict[str, Any]] | None] = queue.SimpleQueue()
        self._held: dict[str, tuple[Message, float]] = {}  # By receipt of the receive, with the time of renewal.
        self._finished = threading.Event()

    def run(self) -> None:
        """Consumes until `stop` is called, or Ctrl-C; then finishes the running handlers and returns."""
        start = lambda target: self._start(target)
        workers = [start(self._work) for _ in range(self.concurrency)]
        settler, renewer = start(self._settle), start(self._renew)
        receivers = [start(self._receive) for _ in range(self.receivers)]
        try:
            while any(receiver.is_alive() for receiver in receivers):  # A join would hold signals back.
                time.sleep(0.1)
        except KeyboardInterrupt:
            self.stop()
            for receiver in receivers:
                receiver.join()
        for _ in workers:
            self._todo.put(None)
        for worker in workers:
            worker.join()
        self._finished.set()
        self._done.put(None)
        settler.join()
        renewer.join()

    def stop(self, *_: Any) -> None:
        """Stops gracefully; may be called from a handler, another thread, or as a signal's handler. A long poll that
        waits at that time ends by itself, after `wait_seconds` at most."""
        self._stopping.set()

    def _start(self, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"cursus{target.__name__}", daemon=True)
        thread.start()
        return thread

    def _receive(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            places = self._reserve()
            if self._stopping.is_set():
                return
            messages: list[Message] = []
            try:
                messages = self.client.receive(
                    self.subscription, max_messages=places, wait_seconds=self.wait_seconds,
                    visibility_timeout_seconds=self.visibility_timeout_seconds,
                )
                failures = 0
            except Exception as error:  # The loop outlives an outage, and says so.
                failures += 1
                log.warning("receive from %s: %s", self.subscription, error)
                self._stopping.wait(min(30, 2**failures) * random.uniform(0.5, 1))
            renew_at = time.monotonic() + self.visibility_timeout_seconds / 2
            for message in messages:
                self._held[message.id] = (message, renew_at)
                self._todo.put(message)
            if len(messages) < places:
                self._free.release(places - len(messages))

    def _reserve(self) -> int:
        """Places for a whole batch, or fewer when the consumer stops. One receiver at a time, so that none has a part."""
        places = 0
        with self._reserving:
            while places < self.batch and not self._stopping.is_set():
                places += self._free.acquire(timeout=0.2)
        return places

    def _work(self) -> None:
        while (message := self._todo.get()) is not None:
            if self._stopping.is_set():  # Received, and never begun: somebody else gets it at once.
                self._done.put((message, {"action": "nack", "delay_seconds": 0}))
                continue
            try:
                self.handler(message)
                item: dict[str, Any] = {"action": "ack"}
            except Retry as retry:
                item = {"action": "nack", "delay_seconds": retry.delay_seconds}
            except DeadLetter as dead:
                item = {"action": "dead_letter", "reason": str(dead)[:1024] or "no reason"}
            except BaseException:
                delay = min(self.max_backoff_seconds, 2 ** min(message.attempt, 20))
                item = {"action": "nack", "delay_seconds": int(delay * random.uniform(0.5, 1))}
                log.exception("message %s, attempt %d, again in %d s", message.id, message.attempt, item["delay_seconds"])
            self._done.put((message, item))

    def _settle(self) -> None:
        is_open = True
        while is_open:
            group = [self._done.get()]
            while len(group) < SETTLE_MAX and not self._done.empty():
                group.append(self._done.get())
            is_open = None not in group
            done = [one for one in group if one is not None]
            if done:
                self._settle_group(done)

    def _settle_group(self, done: list[tuple[Message, dict[str, Any]]]) -> None:
        for message, _ in done:
            self._held.pop(message.id, None)
        items = [{"receipt": message.receipt, **item} for message, item in done]
        try:
            results = self.client.settle(self.subscription, items)
        except Exception as error:  # They come again when their timeout is over.
            log.error("settle of %d messages of %s: %s", len(items), self.subscription, error)
            return
        finally:
            self._free.release(len(done))
        for (message, item), result in zip(done, results):
            if "error" in result:
                log.warning("%s of message %s: %s", item["action"], message.id, Problem(result["error"]))

    def _renew(self) -> None:
        while not self._finished.wait(min(1.0, self.visibility_timeout_seconds / 8)):
            now = time.monotonic()
            due = [message for message, at in list(self._held.values()) if at <= now]
            for start in range(0, len(due), SETTLE_MAX):
                self._renew_group(due[start : start + SETTLE_MAX])

    def _renew_group(self, due: list[Message]) -> None:
        seconds = self.visibility_timeout_seconds
        begun = time.monotonic()
        items = [{"receipt": m.receipt, "action": "extend", "visibility_timeout_seconds": seconds} for m in due]
        try:
            results = self.client.settle(self.subscription, items)
        except Exception as error:  # The next round tries again.
            log.warning("renewal of %d messages of %s: %s", len(due), self.subscription, error)
            return
        for message, result in zip(due, results):
            if "error" in result:
                # Settled meanwhile, or given to somebody else: there is nothing to renew.
                self._held.pop(message.id, None)
                continue
            message.receipt = result.get("receipt", message.receipt)
            if message.id in self._held:
                self._held[message.id] = (message, begun + seconds / 2)
