// Tests of cursus-sdk against a real node: sdk.js URL KEY LIMITED_KEY. Run by `sdk/check`.

import { Client, Consumer, DeadLetter, Problem, Retry, verify, WebhookVerificationError, type Message } from "cursus-sdk";

declare const process: { argv: string[]; exit(code: number): never };
type Incoming = AsyncIterable<Uint8Array> & { url: string; headers: Record<string, string>; socket: { destroy(): void } };
type Outgoing = { writeHead(status: number, headers: Record<string, string>): void; end(body: string): void };
type Listener = (request: Incoming, response: Outgoing) => void;
type Server = { listen(port: number, host: string, ready: () => void): void; address(): { port: number }; close(): void };
const http = "node:http";
const { createServer } = (await import(http)) as { createServer(listener: Listener): Server };
const builtin = "node:crypto";
const { createHmac } = (await import(builtin)) as {
  createHmac(hash: string, key: Uint8Array): { update(text: string): { digest(form: "base64"): string } };
};

const [, , url, key, limitedKey] = process.argv;
const client = new Client(url!, { key: key! });

function equal(found: unknown, expected: unknown): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  if (a !== b) throw new Error(`found ${a}, expected ${b}`);
}

async function thrown(action: () => unknown): Promise<unknown> {
  try {
    await action();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

async function subscribed(name: string): Promise<string> {
  for (const topic of [name, `${name}-dead`]) await client.topics.putTopic({ topic });
  const subscriptionSettings = { topic: name, deadLetterTopic: `${name}-dead` };
  await client.subscriptions.putSubscription({ subscription: name, subscriptionSettings });
  return name;
}

const stats = (subscription: string) => client.subscriptions.getSubscriptionStats({ subscription });
const published = async (topic: string) => (await client.topics.getTopicStats({ topic })).published;
const sleep = (ms: number) => new Promise((wake) => setTimeout(wake, ms));

/** Consumes until `until()` holds, for 20 s at most. */
async function consume(name: string, handler: (m: Message) => unknown, until: () => boolean, options = {}): Promise<void> {
  const consumer = new Consumer(client, name, handler, { onError: () => {}, ...options });
  const run = consumer.run();
  for (const deadline = Date.now() + 20_000; !until() && Date.now() < deadline; ) await sleep(20);
  consumer.stop();
  await run;
  if (!until()) throw new Error("the consumer did not get there");
}

const tests: Record<string, () => Promise<void>> = {
  async "a handler that returns acks, and one that throws gets the message again"() {
    const name = await subscribed("sdk-ts");
    const messages = Array.from({ length: 20 }, (_, n) => ({ body: String(n) }));
    await client.messages.publishBatch({ topic: name, publishBatch: { messages } });
    const seen: string[] = [];
    const handler = ({ body, attempt }: Message) => {
      seen.push(`${body}/${attempt}`);
      if (body === "3" && attempt === 1) throw new Error("once");
      if (body === "4" && attempt === 1) throw new Retry(0);
      if (body === "5") throw new DeadLetter("five is bad");
    };
    await consume(name, handler, () => seen.length === 22);
    equal(seen.sort(), [...messages.map(({ body }) => `${body}/1`), "3/2", "4/2"].sort());
    equal((await stats(name)).backlog, 0);
    const dead = [];
    for await (const m of client.each((after) => client.messages.browse({ topic: `${name}-dead`, after }))) dead.push(m.body);
    equal(dead, ["5"]);
  },
  async "a message stays hidden while its handler runs"() {
    const name = await subscribed("sdk-ts-slow");
    await client.publish(name, "slow");
    const seen: unknown[] = [];
    const handler = async ({ attempt }: Message) => {
      seen.push(attempt);
      await sleep(5000);
      seen.push("done");
    };
    await consume(name, handler, () => seen.includes("done"), { visibilityTimeoutSeconds: 2 });
    equal(seen, [1, "done"]);
    equal((await stats(name)).backlog, 0);
  },
  async "a stop finishes what runs and gives back what has not begun"() {
    const name = await subscribed("sdk-ts-stop");
    const messages = Array.from({ length: 10 }, (_, n) => ({ body: String(n) }));
    await client.messages.publishBatch({ topic: name, publishBatch: { messages } });
    const seen: unknown[] = [];
    const handler = async ({ body }: Message) => {
      seen.push(body);
      await sleep(1000);
    };
    await consume(name, handler, () => seen.length >= 2, { concurrency: 2 });
    const { backlog, inFlight } = await stats(name);
    equal([backlog, inFlight], [10 - seen.length, 0]);
    // A long poll that waits does not hold up a stop.
    const begin = Date.now();
    await consume(await subscribed("sdk-ts-empty"), () => {}, () => Date.now() - begin > 200, { waitSeconds: 30 });
    if (Date.now() - begin > 5000) throw new Error("the stop waited for the poll");
  },
  async "a publish is repeated until it is answered, and stored once"() {
    const name = await subscribed("sdk-ts-retries");
    const failures: number[] = [];
    const keys = new Set<string | undefined>();
    let requests = 0;
    const server = createServer(async (request, response) => {
      requests++;
      keys.add(request.headers["idempotency-key"]);
      const parts = [];
      for await (const part of request) parts.push(new TextDecoder().decode(part));
      const failure = failures.shift();
      const problem = JSON.stringify({ status: 503, code: "unavailable", retryable: true });
      if (failure === 503) {
        response.writeHead(503, { "retry-after": "1" });
        return response.end(problem);
      }
      const headers = { "content-type": "text/plain", "idempotency-key": request.headers["idempotency-key"]! };
      const answer = await client.request(request.url, { method: "POST", headers, body: parts.join("") });
      // 0: the node got the request, and the client gets no answer.
      if (failure === 0) return request.socket.destroy();
      response.writeHead(200, { "content-type": "application/json" });
      response.end(await answer.text());
    });
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    const through = new Client(`http://127.0.0.1:${server.address().port}`, { key: key! });
    failures.push(503, 0, 503);
    const begin = Date.now();
    await through.publish(name, "once");
    if (Date.now() - begin < 2000) throw new Error("Retry-After was not waited for");
    equal([requests, keys.size, await published(name)], [4, 1, 1]);
    // The generated client does the same.
    failures.push(0);
    await through.messages.publish({ topic: name, body: "twice" });
    equal([requests, keys.size, await published(name)], [6, 2, 2]);
    server.close();
  },
  async "problems are typed, and a long wait is not waited for"() {
    const missing = await thrown(() => client.topics.getTopic({ topic: "sdk-missing" }));
    equal(missing instanceof Problem && [missing.status, missing.code], [404, "not_found"]);
    const limited = new Client(url!, { key: limitedKey!, maxWaitSeconds: 5 });
    const full = await thrown(() => limited.topics.putTopic({ topic: "sdk-more" }));
    equal(full instanceof Problem && [full.code, full.retryAfterSeconds], ["quota_exceeded", 60]);
    const wrong = await thrown(() => client.receive("sdk-ts", { maxMessages: 1000 }));
    equal(wrong instanceof Problem && wrong.errors[0]?.pointer, "/max_messages");
  },
  async "bodies of every kind come back"() {
    const name = await subscribed("sdk-ts-bodies");
    const large = new Uint8Array(5_000_000).map((_, index) => index % 251);
    const options = { tag: "t", key: "k", attributes: { a: "b" } };
    for (const body of ["text", new Uint8Array([0, 255]), { n: 1 }, large]) await client.publish(name, body, options);
    const found: Message[] = [];
    while (found.length < 4) found.push(...(await client.receive(name, { maxMessages: 10, waitSeconds: 5 })));
    const [text, bytes, json, big] = await Promise.all(found.map((message) => client.body(message)));
    equal([new TextDecoder().decode(text), [...bytes!], new TextDecoder().decode(json)], ["text", [0, 255], '{"n":1}']);
    equal([big!.length, big!.every((byte, index) => byte === index % 251)], [5_000_000, true]);
    equal([found[0]!.tag, found[0]!.key, found[0]!.attributes], ["t", "k", { a: "b" }]);
    await client.extend(name, found[0]!, 600);
    await client.ack(name, found[0]!);
    await client.nack(name, found[1]!);
    await client.deadLetter(name, found[2]!, "no reason");
    equal((await thrown(() => client.ack(name, found[2]!))) instanceof Problem, true);
  },
  async "a webhook is verified with either secret"() {
    const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const other = `whsec_${btoa("o".repeat(24))}`;
    const stamp = String(Math.floor(Date.now() / 1000));
    const key = Uint8Array.from(atob(secret.slice(6)), (c) => c.charCodeAt(0));
    for (const body of ['{"a":1}', "text"]) {
      const signature = `v1,${createHmac("sha256", key).update(`msg_1.${stamp}.${body}`).digest("base64")}`;
      const headers = { "Webhook-Id": "msg_1", "Webhook-Timestamp": stamp, "Webhook-Signature": signature };
      equal(verify([other, secret], headers, body), { id: "msg_1", body });
      const old = { ...headers, "Webhook-Timestamp": "1000000000" };
      for (const wrong of [() => verify(other, headers, body), () => verify(secret, old, body), () => verify(secret, headers, `${body} `)]) {
        equal((await thrown(wrong)) instanceof WebhookVerificationError, true);
      }
    }
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}:`, error);
  }
}
process.exit(failed === 0 ? 0 : 1);
