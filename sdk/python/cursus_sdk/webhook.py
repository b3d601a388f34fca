"""Verifies deliveries of push subscriptions (Standard Webhooks)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from standardwebhooks import Webhook, WebhookVerificationError


@dataclass
class Delivery:
    """A verified delivery. `id` is the same in each attempt: drop one that was seen before."""

    id: str
    body: bytes
    content_type: str

    def json(self) -> Any:
        return json.loads(self.body)


def verify(secrets: str | Sequence[str], headers: Mapping[str, str], body: bytes) -> Delivery:
    """The delivery, if one of the secrets (`whsec_…`) signed it less than five minutes ago; else raises
    `WebhookVerificationError`. Give both secrets while one replaces the other."""
    headers = {name.lower(): value for name, value in headers.items()}
    error: Exception = WebhookVerificationError("no secret")
    for secret in [secrets] if isinstance(secrets, str) else secrets:
        try:
            _verify_one(secret, headers, body)
            return Delivery(headers["webhook-id"], body, headers.get("content-type", ""))
        except WebhookVerificationError as failed:
            error = failed
        except ValueError:  # Of a signature that is no base64.
            error = WebhookVerificationError("invalid signature")
    raise error


def _verify_one(secret: str, headers: dict[str, str], body: bytes) -> None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        # The library signs texts only: the signature of these bytes is checked here, and the rest on another text.
        to_sign = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = base64.b64encode(hmac.new(key, to_sign, hashlib.sha256).digest()).decode()
        signatures = headers.get("webhook-signature", "").split(" ")
        if not any(hmac.compare_digest(f"v1,{expected}".encode(), one.encode()) for one in signatures):
            raise WebhookVerificationError("No matching signature found") from None
        text = ""
        of_text = hmac.new(key, f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode(), hashlib.sha256)
        headers = {**headers, "webhook-signature": f"v1,{base64.b64encode(of_text.digest()).decode()}"}
    Webhook(secret).verify(text, headers, json_parse=False)
