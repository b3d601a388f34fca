// Publishes ten orders and consumes them: orders.js URL.

import { Client, Consumer, DeadLetter, Problem, type Message } from "cursus-sdk";

declare const process: { argv: string[]; on(signal: string, handler: () => void): void };

const client = new Client(process.argv[2]!);
const [topic, failed, subscription] = ["example-ts-orders", "example-ts-failed", "example-ts-billing"];
await client.topics.putTopic({ topic });
await client.topics.putTopic({ topic: failed });
const subscriptionSettings = { topic, deadLetterTopic: failed, maxAttempts: 5 };
await client.subscriptions.putSubscription({ subscription, subscriptionSettings });

for (let order = 0; order < 10; order++) {
  await client.publish(topic, { order }, { tag: "created", attributes: { shop: "north" } });
}

const billed: number[] = [];

function bill(message: Message): void {
  const { order } = JSON.parse(message.body!) as { order: number };
  if (order === 7) throw new DeadLetter("order 7 is cursed");
  if (billed.push(order) === 9) consumer.stop();
}

const consumer = new Consumer(client, subscription, bill, { concurrency: 4 });
process.on("SIGTERM", () => consumer.stop());
await consumer.run();
console.log("billed", billed.sort().join());

try {
  await client.topics.getTopic({ topic: "no-such-topic" });
} catch (error) {
  if (error instanceof Problem) console.log("problem", error.code);
}
for await (const { name } of client.each((after) => client.topics.listTopics({ after, limit: 1 }))) {
  if (name.startsWith("example-ts")) console.log("topic", name);
}
