"""Reads requests as a receiver in Python does: with the packages `standardwebhooks` and `cloudevents`.

Run by sign.rs. Input is {"secrets": [...], "requests": [{"headers", "body_base64"}]}; output is one object for each request:
what `verify` returned, or which error it raised, and the event, if it is one.
"""

import base64
import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.v1.http import from_http
from standardwebhooks import Webhook


def verified(secret, headers, body, **options):
    try:
        return {"is": Webhook(secret).verify(body, headers, **options)}
    except Exception as error:
        return {"error": type(error).__name__}


def shown(data, headers):
    """A receiver decodes what is a text; the older reader leaves that to it."""
    if isinstance(data, bytes) and headers["content-type"].startswith("text/"):
        return data.decode()
    return {"base64": base64.b64encode(data).decode()} if isinstance(data, bytes) else data


def events(headers, body):
    if not (headers["content-type"].startswith("application/cloudevents") or "ce-id" in headers):
        return None
    new = from_http_event(HTTPMessage(headers=headers, body=body))
    old = from_http(headers, body)
    return [[new.get_id(), shown(new.get_data(), headers)], [old["id"], shown(old.data, headers)]]


given = json.load(sys.stdin)
answers = []
for request in given["requests"]:
    headers, body = request["headers"], base64.b64decode(request["body_base64"])
    answers.append({
        "parsed": [verified(secret, headers, body) for secret in given["secrets"]],
        "unparsed": [verified(secret, headers, body, json_parse=False) for secret in given["secrets"]],
        "events": events(headers, body),
    })
json.dump(answers, sys.stdout)
