"""Prints openapi.json as the service reads requests: lenient.py < openapi.json. Used by `openapi/check`.

The document does not offer null for an absent field or body, and generated clients are simpler for it. The service takes it
all the same, which schemathesis would report.
"""

import json
import sys

document = json.load(sys.stdin)
schemas = document["components"]["schemas"]
NULL = {"type": "null"}


def requested(node, found):
    """The names of all schemas that `node` leads to."""
    if isinstance(node, dict):
        name = node.get("$ref", "").removeprefix("#/components/schemas/")
        if name in schemas and name not in found:
            found.add(name)
            requested(schemas[name], found)
        for value in node.values():
            requested(value, found)
    elif isinstance(node, list):
        for value in node:
            requested(value, found)


def allow_null(schema):
    for name, field in schema.get("properties", {}).items():
        if name not in schema.get("required", []):
            schema["properties"][name] = {"anyOf": [field, NULL]}
    for part in schema.get("oneOf", []):
        allow_null(part)


names = set()
for path in document["paths"].values():
    for operation in path.values():
        body = operation.get("requestBody", {})
        requested(body, names)
        content = body.get("content", {}).get("application/json")
        if content and not body.get("required"):
            content["schema"] = {"anyOf": [content["schema"], NULL]}
for name in names:
    allow_null(schemas[name])
json.dump(document, sys.stdout)
