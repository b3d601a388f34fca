// Measures the consumer loop: bench.js URL [MESSAGES]. Prints messages a second from the first to the last handled.

import { Client, Consumer } from "cursus-sdk";

declare const process: { argv: string[] };

const [, , url, count = "30000"] = process.argv;
const client = new Client(url!);
const topic = `bench-typescript-${Date.now()}`;
await client.topics.putTopic({ topic });
await client.subscriptions.putSubscription({ subscription: topic, subscriptionSettings: { topic } });
const messages = Array.from({ length: 100 }, () => ({ body: "x".repeat(200) }));
for (let sent = 0; sent < Number(count); sent += 100) await client.messages.publishBatch({ topic, publishBatch: { messages } });

let handled = 0;
let begin = 0;
let end = 0;
const consumer = new Consumer(client, topic, () => {
  if (handled++ === 0) begin = performance.now();
  if (handled !== Number(count)) return;
  end = performance.now();
  consumer.stop();
}, { batch: 10, receivers: 4 });
await consumer.run();
const { backlog } = await client.subscriptions.getSubscriptionStats({ subscription: topic });
const rate = Math.round(handled / ((end - begin) / 1000)).toLocaleString("en");
console.log(`typescript: ${rate} messages/s at batch 10, ${backlog} left`);
