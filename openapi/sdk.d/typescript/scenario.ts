// The scenario of openapi/sdk with the generated TypeScript client (fetch): scenario.js URL KEY LIMITED_KEY.

import {
  Configuration, MessagesApi, ResponseError, SubscriptionsApi, TopicsApi,
  type Problem, type ReceivedMessage, type SettleItem, type SettleResult,
} from "./client/index.js";

declare const process: { argv: string[] };

const [, , url, key, limitedKey] = process.argv;
const configured = (accessToken: string) => new Configuration({ basePath: url, accessToken });
const topics = new TopicsApi(configured(key!));
const subscriptions = new SubscriptionsApi(configured(key!));
const messages = new MessagesApi(configured(key!));

function check(holds: unknown, what: unknown): asserts holds {
  if (!holds) throw new Error(`unexpected: ${JSON.stringify(what)}`);
}

/** Receives until there are `count` messages, by their body. */
async function receive(subscription: string, count: number): Promise<Map<string, ReceivedMessage>> {
  const found = new Map<string, ReceivedMessage>();
  while (found.size < count) {
    const receiveRequest = { maxMessages: 10, waitSeconds: 10 };
    const { messages: more } = await messages.receive({ subscription, receiveRequest });
    check(more.length > 0, [...found.keys()]);
    for (const m of more) found.set(m.body ?? m.bodyBase64 ?? m.bodyUrl ?? "", m);
  }
  return found;
}

async function settle(subscription: string, item: SettleItem): Promise<SettleResult> {
  const { results: [result] } = await messages.settle({ subscription, settleRequest: { items: [item] } });
  check(result && !result.error, result);
  return result;
}

/** The problem and the response of a request that fails. */
async function problem(request: Promise<unknown>): Promise<[Problem, Response]> {
  try {
    await request;
  } catch (error) {
    if (error instanceof ResponseError) return [await error.response.json(), error.response];
    throw error;
  }
  throw new Error("the request succeeded");
}

// Create.
const [topic, dead, subscription, failed] = ["typescript-orders", "typescript-dead", "typescript-billing", "typescript-failed"];
await topics.putTopic({ topic, topicSettings: { retentionSeconds: 3600 } });
await topics.putTopic({ topic: dead });
const billing = { topic, deadLetterTopic: dead, visibilityTimeoutSeconds: 30 };
check((await subscriptions.putSubscription({ subscription, subscriptionSettings: billing })).maxAttempts === 16, billing);
await subscriptions.putSubscription({ subscription: failed, subscriptionSettings: { topic: dead } });

// Publish text, JSON and bytes.
await messages.publish({ topic, body: "two espressos", cursusTag: "coffee", idempotencyKey: '"typescript-1"' });
const batch = [{ json: { cups: 2 }, attributes: { table: "7" } }, { bodyBase64: "AP8=" }];
const { results } = await messages.publishBatch({ topic, publishBatch: { messages: batch } });
check(results.length === 2 && results.every((result) => result.id), results);

// Receive and settle in every way.
const found = await receive(subscription, 3);
const [text, order, binary] = ["two espressos", '{"cups":2}', "AP8="].map((body) => found.get(body));
check(text?.tag === "coffee" && order?.attributes?.["table"] === "7" && binary, [...found]);
const extended = await settle(subscription, { receipt: text.receipt, action: "extend", visibilityTimeoutSeconds: 600 });
check(extended.receipt && extended.visibleUntil! > text.visibleUntil, extended);
await settle(subscription, { receipt: order.receipt, action: "nack", delaySeconds: 0 });
const again = (await receive(subscription, 1)).get('{"cups":2}');
check(again?.attempt === 2, again);
await settle(subscription, { receipt: again.receipt, action: "ack" });
await settle(subscription, { receipt: extended.receipt, action: "ack" });
await settle(subscription, { receipt: binary.receipt, action: "dead_letter", reason: "no table" });
check((await receive(failed, 1)).has("AP8="), "the dead letter");

// Problems.
const [missing] = await problem(topics.getTopic({ topic: "typescript-missing" }));
check(missing.code === "not_found", missing);
const [full, response] = await problem(new TopicsApi(configured(limitedKey!)).putTopic({ topic: "typescript" }));
check(full.code === "quota_exceeded" && Number(response.headers.get("Retry-After")) > 0, full);

// A long poll that ends empty.
const begin = Date.now();
const empty = await messages.receive({ subscription, receiveRequest: { waitSeconds: 1 } });
check(empty.messages.length === 0 && Date.now() - begin > 900, empty);

// 5 MB both ways.
const body = "0123456789".repeat(500_000);
await messages.publish({ topic, body });
const [large] = [...(await receive(subscription, 1)).values()];
check((await (await messages.getMessageBody({ id: large!.id })).text()) === body, "the large body");
await settle(subscription, { receipt: large!.receipt, action: "ack" });
