// Publishes, receives, extends and acks with the types that openapi-typescript makes of openapi.json and openapi-fetch.
// Run by `openapi/check`, which compiles it (strict) beside the generated schema.d.ts: client.js <url of a node>.

import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

type Received = components["schemas"]["ReceivedMessage"];

const client = createClient<paths>({ baseUrl: process.argv[2] });
const topic = "typescript-orders";
const subscription = "typescript-billing";

function check(holds: boolean, what: unknown): asserts holds {
  if (!holds) throw new Error(`unexpected: ${JSON.stringify(what)}`);
}

/** The data of an answer, or its problem thrown. */
async function ok<T>(answer: Promise<{ data?: T; error?: unknown }>): Promise<T> {
  const { data, error } = await answer;
  check(data !== undefined, error);
  return data;
}

function receive(): Promise<Received[]> {
  const body = { max_messages: 10, wait_seconds: 5, visibility_timeout_seconds: 30 };
  const path = { subscription };
  return ok(client.POST("/v1/subscriptions/{subscription}/receive", { params: { path }, body })).then((r) => r.messages);
}

function ack(receipts: string[]) {
  return ok(client.POST("/v1/subscriptions/{subscription}/ack", { params: { path: { subscription } }, body: { receipts } }));
}

const settings = { retention_seconds: 3600 };
check((await ok(client.PUT("/v1/topics/{topic}", { params: { path: { topic } }, body: settings }))).name === topic, topic);
const reading = { params: { path: { subscription } }, body: { topic } };
check((await ok(client.PUT("/v1/subscriptions/{subscription}", reading))).topic === topic, reading);

const raw = await ok(
  client.POST("/v1/topics/{topic}/messages", {
    params: { path: { topic }, header: { "Cursus-Tag": "raw" } },
    headers: { "content-type": "text/plain" },
    body: "two espressos",
    bodySerializer: (body) => body,
  }),
);
const batch = { messages: [{ body: "text", key: "k1", attributes: { shop: "7" } }, { json: { n: 1 } }] };
const published = await ok(client.POST("/v1/topics/{topic}/messages/batch", { params: { path: { topic } }, body: batch }));
check(published.results.every((result) => result.error === undefined), published);

const messages = new Map<string, Received>();
while (messages.size < 3) {
  const more = await receive();
  check(more.length > 0, "no more messages came");
  more.forEach((message) => messages.set(message.id, message));
}
const first = messages.get(raw.id);
check(first?.body === "two espressos" && first.tag === "raw" && first.content_type === "text/plain", first);
const text = messages.get(published.results[0]?.id ?? "");
check(text?.key === "k1" && text.attributes?.shop === "7" && text.attempt === 1, text);

const changes = [{ receipt: text.receipt, visibility_timeout_seconds: 600 }];
const path = { subscription };
const extended = await ok(client.POST("/v1/subscriptions/{subscription}/visibility", { params: { path }, body: { changes } }));
const change = extended.results[0];
check(change?.visible_until !== undefined && change.visible_until > text.visible_until, extended);
check(change.receipt !== undefined, extended);
const others = [...messages.values()].filter((message) => message.id !== text.id);
const acked = await ack([change.receipt, ...others.map((message) => message.receipt)]);
check(acked.results.length === 3 && acked.results.every((result) => result.error === undefined), acked);

const forged = await ack(["forged"]);
check(forged.results[0]?.error?.code === "receipt_invalid", forged);
const missing = await client.GET("/v1/topics/{topic}", { params: { path: { topic: "typescript-missing" } } });
check(missing.error?.status === 404 && missing.error.code === "not_found", missing.error);
console.log("typescript client: published, received, extended and acked");
