// The consumer loop: receives batches, runs a handler for each message, and settles what the handler did. While a handler
// runs its message is kept hidden; when it returns the message is acked, and when it throws the message is nacked for a time
// that doubles with each attempt. Delivery is at-least-once: a handler may see a message again.

import { Problem, sleep, type Client, type Message, type SettleItem } from "./cursus.js";

const SETTLE_MAX = 100;

/** Thrown by a handler that wants its message again after so many seconds. */
export class Retry extends Error {
  constructor(readonly delaySeconds: number) {
    super(`again in ${delaySeconds} s`);
  }
}

/** Thrown by a handler whose message will never succeed; the message of the error is the reason. */
export class DeadLetter extends Error {}

export interface ConsumerOptions {
  /** Handlers that run at a time. 10 when absent. */
  concurrency?: number;
  /** Messages of a receive, 1 to 100. 10 when absent. */
  batch?: number;
  /** Receives at a time; at most `receivers * batch` messages wait here for a handler. 2 when absent. */
  receivers?: number;
  waitSeconds?: number;
  visibilityTimeoutSeconds?: number;
  maxBackoffSeconds?: number;
  /** Where failures go; the console when absent. */
  onError?: (what: string, error: unknown) => void;
}

interface Held {
  message: Message;
  renewAt: number;
}

/** Runs `handler` for the messages of a subscription. */
export class Consumer {
  readonly #options: Required<ConsumerOptions>;
  readonly #stopping = new AbortController();
  readonly #held = new Map<string, Held>();
  readonly #todo: Message[] = [];
  #done: [Message, SettleItem][] = [];
  #places: number;
  #running = 0;
  #isSettling = false;
  #waiting: (() => void)[] = [];

  constructor(
    readonly client: Client,
    readonly subscription: string,
    readonly handler: (message: Message) => unknown,
    options: ConsumerOptions = {},
  ) {
    this.#options = {
      concurrency: 10, batch: 10, receivers: 2, waitSeconds: 10, visibilityTimeoutSeconds: 30, maxBackoffSeconds: 600,
      onError: (what, error) => console.error(`cursus: ${what}:`, error),
      ...options,
    };
    const { concurrency, batch, receivers, visibilityTimeoutSeconds } = this.#options;
    this.#places = concurrency + receivers * batch;
    if (concurrency < 1 || receivers < 1 || batch < 1 || batch > 100 || visibilityTimeoutSeconds < 2) {
      throw new RangeError("concurrency and receivers are 1 or more, batch 1 to 100, visibilityTimeoutSeconds 2 or more");
    }
  }

  /** Consumes until `stop` is called; then finishes the running handlers and settles. */
  async run(): Promise<void> {
    const period = Math.min(1, this.#options.visibilityTimeoutSeconds / 8) * 1000;
    let renewing = Promise.resolve();
    const timer = setInterval(() => {
      renewing = renewing.then(() => this.#renew());
    }, period);
    try {
      await Promise.all(Array.from({ length: this.#options.receivers }, () => this.#receive()));
      while (this.#held.size > 0) await this.#change();
    } finally {
      clearInterval(timer);
      await renewing;
    }
  }

  /** Stops gracefully: a waiting receive is cut off, running handlers finish, messages not begun are given back. */
  stop(): void {
    this.#stopping.abort();
    for (const message of this.#todo.splice(0)) this.#finish(message, "nack", { delay_seconds: 0 });
    this.#wake();
  }

  async #receive(): Promise<void> {
    const { batch, waitSeconds, visibilityTimeoutSeconds, onError } = this.#options;
    const { signal } = this.#stopping;
    for (let failures = 0; !signal.aborted; ) {
      if (this.#places < batch) {
        await this.#change();
        continue;
      }
      this.#places -= batch;
      let unused = batch;
      const options = { maxMessages: batch, waitSeconds, visibilityTimeoutSeconds, signal };
      try {
        const messages = await this.client.receive(this.subscription, options);
        failures = 0;
        unused -= messages.length;
        const renewAt = performance.now() + visibilityTimeoutSeconds * 500;
        for (const message of messages) {
          this.#held.set(message.id, { message, renewAt });
          if (signal.aborted) this.#finish(message, "nack", { delay_seconds: 0 });
          else this.#todo.push(message);
        }
        this.#work();
      } catch (error) {
        if (signal.aborted) return;
        // The loop outlives an outage, and says so.
        onError(`receive from ${this.subscription}`, error);
        await Promise.race([sleep(Math.min(30, 2 ** ++failures) * Math.random()), aborted(signal)]);
      } finally {
        this.#places += unused;
      }
    }
  }

  #work(): void {
    while (this.#running < this.#options.concurrency) {
      const message = this.#todo.shift();
      if (!message) return;
      this.#running++;
      void this.#handle(message).finally(() => {
        this.#running--;
        this.#work();
      });
    }
  }

  async #handle(message: Message): Promise<void> {
    try {
      await this.handler(message);
      this.#finish(message, "ack");
    } catch (error) {
      if (error instanceof Retry) return this.#finish(message, "nack", { delay_seconds: error.delaySeconds });
      if (error instanceof DeadLetter) {
        return this.#finish(message, "dead_letter", { reason: error.message.slice(0, 1024) || "no reason" });
      }
      const backoff = Math.min(this.#options.maxBackoffSeconds, 2 ** message.attempt);
      const delay_seconds = Math.floor(backoff * (0.5 + Math.random() / 2));
      this.#options.onError(`message ${message.id}, attempt ${message.attempt}, again in ${delay_seconds} s`, error);
      this.#finish(message, "nack", { delay_seconds });
    }
  }

  #finish(message: Message, action: SettleItem["action"], options: Partial<SettleItem> = {}): void {
    this.#done.push([message, { receipt: message.receipt, action, ...options }]);
    if (!this.#isSettling) void this.#settle();
  }

  async #settle(): Promise<void> {
    this.#isSettling = true;
    // What finishes in the same moment goes in one request.
    await Promise.resolve();
    while (this.#done.length > 0) {
      const group = this.#done.splice(0, SETTLE_MAX);
      try {
        const results = await this.client.settle(this.subscription, group.map(([, item]) => item));
        results.forEach(({ error }, index) => {
          const [message, item] = group[index]!;
          if (error) this.#options.onError(`${item.action} of message ${message.id}`, new Problem(error));
        });
      } catch (error) {
        // They come again when their timeout is over.
        this.#options.onError(`settle of ${group.length} messages of ${this.subscription}`, error);
      }
      for (const [message] of group) this.#held.delete(message.id);
      this.#places += group.length;
      this.#wake();
    }
    this.#isSettling = false;
  }

  async #renew(): Promise<void> {
    const seconds = this.#options.visibilityTimeoutSeconds;
    const now = performance.now();
    const finished = new Set(this.#done.map(([message]) => message.id));
    const all = [...this.#held.values()].filter(({ renewAt, message }) => renewAt <= now && !finished.has(message.id));
    for (let start = 0; start < all.length; start += SETTLE_MAX) {
      const due = all.slice(start, start + SETTLE_MAX);
      const items = due.map(({ message: { receipt } }) => {
        return { receipt, action: "extend", visibility_timeout_seconds: seconds } as const;
      });
      try {
        const results = await this.client.settle(this.subscription, items);
        due.forEach((held, index) => {
          // With an error it was settled meanwhile, or given to another consumer: there is nothing to renew.
          const { error, receipt } = results[index] ?? {};
          held.renewAt = error ? Infinity : now + seconds * 500;
          held.message.receipt = receipt ?? held.message.receipt;
        });
      } catch (error) {
        this.#options.onError(`renewal of ${due.length} messages of ${this.subscription}`, error);
      }
    }
  }

  /** Waits until messages were settled, or the consumer stops. */
  #change(): Promise<void> {
    return new Promise((wake) => this.#waiting.push(wake));
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => signal.addEventListener("abort", () => done(), { once: true }));
}
