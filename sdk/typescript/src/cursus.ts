// Requests with retries, typed problems, and the verbs of messages. Messages take the short way, without the generated
// models: they are what a consumer makes thousands of a second.

import {
  AdminApi, BudgetsApi, Configuration, EventsApi, MessagesApi, PushApi, QuotaApi, SubscriptionsApi, TopicsApi, UsageApi,
  type ErrorCode, type FieldError,
} from "./client/index.js";

declare const process: { env: Record<string, string | undefined> } | undefined;

interface ProblemFields {
  status?: number;
  code?: ErrorCode;
  detail?: string;
  retryable?: boolean;
  errors?: FieldError[];
}

/** An answer that is an error (RFC 9457). `code` is stable. */
export class Problem extends Error {
  override name = "Problem";
  readonly status: number;
  readonly code: ErrorCode | "unknown";
  readonly retryable: boolean;
  readonly errors: FieldError[];

  constructor(fields: ProblemFields, readonly retryAfterSeconds?: number) {
    super(`${fields.status} ${fields.code ?? "unknown"}: ${fields.detail}`);
    this.status = fields.status ?? 0;
    this.code = fields.code ?? "unknown";
    this.retryable = fields.retryable ?? false;
    this.errors = fields.errors ?? [];
  }
}

/** A received message. One of `body` (text), `body_base64` and `body_url` is present; `Client.body` reads any of them. */
export interface Message {
  id: string;
  topic: string;
  receipt: string;
  attempt: number;
  body?: string;
  body_base64?: string;
  body_url?: string;
  content_type: string;
  attributes?: Record<string, string>;
  tag?: string;
  key?: string;
  published_at: string;
  visible_until: string;
}

export interface SettleItem {
  receipt: string;
  action: "ack" | "nack" | "extend" | "dead_letter";
  delay_seconds?: number;
  visibility_timeout_seconds?: number;
  reason?: string;
}

export interface SettleResult {
  receipt?: string;
  visible_until?: string;
  error?: ProblemFields;
}

export interface PublishOptions {
  contentType?: string;
  attributes?: Record<string, string>;
  tag?: string;
  key?: string;
  idempotencyKey?: string;
}

export interface ClientOptions {
  /** An API key or a token; `CURSUS_KEY` of the environment when absent. */
  key?: string;
  /** Attempts after the first. 5 when absent. */
  retries?: number;
  /** Longest wait that is worth an attempt. 60 when absent. */
  maxWaitSeconds?: number;
  timeoutSeconds?: number;
}

export const sleep = (seconds: number) => new Promise<void>((wake) => setTimeout(wake, seconds * 1000));
const between = (low: number, high: number) => low + Math.random() * (high - low);
const idempotencyKey = (key: string = crypto.randomUUID()) => `"${key}"`;

/**
 * A service at `url`. A request is tried again while its problem is retryable or no answer came: after `Retry-After`, else
 * after a random time that doubles.
 */
export class Client {
  readonly url: string;
  readonly topics: TopicsApi;
  readonly subscriptions: SubscriptionsApi;
  readonly messages: MessagesApi;
  readonly push: PushApi;
  readonly usage: UsageApi;
  readonly budgets: BudgetsApi;
  readonly events: EventsApi;
  readonly quota: QuotaApi;
  readonly admin: AdminApi;
  readonly #options: Required<Omit<ClientOptions, "key">>;
  readonly #headers: Record<string, string>;

  constructor(url: string, options: ClientOptions = {}) {
    this.url = url.replace(/\/$/, "");
    const { key, ...rest } = options;
    this.#options = { retries: 5, maxWaitSeconds: 60, timeoutSeconds: 60, ...rest };
    const found = key ?? (typeof process === "undefined" ? undefined : process.env["CURSUS_KEY"]);
    this.#headers = found ? { authorization: `Bearer ${found}` } : {};
    // The generated client tries again and throws problems, too: its requests are this client's.
    const fetchApi = (input: RequestInfo | URL, init: RequestInit = {}) => {
      const path = String(input).slice(this.url.length);
      const headers = { ...(init.headers as Record<string, string>) };
      if (init.method === "POST" && /\/messages(\/batch)?$/.test(path)) headers["Idempotency-Key"] ??= idempotencyKey();
      return this.request(path, { ...init, headers });
    };
    // It would wrap what the request throws in an error of its own.
    const onError = ({ error }: { error: unknown }) => Promise.reject(error);
    const generated = new Configuration({ basePath: this.url, fetchApi, middleware: [{ onError }] });
    this.topics = new TopicsApi(generated);
    this.subscriptions = new SubscriptionsApi(generated);
    this.messages = new MessagesApi(generated);
    this.push = new PushApi(generated);
    this.usage = new UsageApi(generated);
    this.budgets = new BudgetsApi(generated);
    this.events = new EventsApi(generated);
    this.quota = new QuotaApi(generated);
    this.admin = new AdminApi(generated);
  }

  /** Sends a request, again if need be, and returns the answer; one that is no success is thrown as a `Problem`. */
  async request(path: string, init: RequestInit, timeoutSeconds = this.#options.timeoutSeconds): Promise<Response> {
    const headers = { ...this.#headers, ...(init.headers as Record<string, string>) };
    for (let attempt = 0; ; attempt++) {
      const isLast = attempt >= this.#options.retries;
      let retryAfter: number | undefined;
      try {
        const timeout = AbortSignal.timeout(timeoutSeconds * 1000);
        const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
        const response = await fetch(this.url + path, { ...init, headers, signal });
        if (response.ok) return response;
        const problem = await problemOf(response);
        retryAfter = problem.retryAfterSeconds;
        if (isLast || !problem.retryable || (retryAfter ?? 0) > this.#options.maxWaitSeconds) throw problem;
      } catch (error) {
        if (error instanceof Problem || isLast || init.signal?.aborted) throw error;
      }
      await sleep(retryAfter === undefined ? between(0.05, 0.1) * 2 ** attempt : retryAfter * between(1, 1.2));
    }
  }

  /** Publishes text, bytes, or a value as JSON, and returns the id. A repeated attempt stores nothing twice. */
  async publish(topic: string, body: unknown, options: PublishOptions = {}): Promise<string> {
    const isBytes = body instanceof Uint8Array;
    const isText = typeof body === "string";
    const type = isBytes ? "application/octet-stream" : isText ? "text/plain" : "application/json";
    const headers: Record<string, string> = {
      "content-type": options.contentType ?? type,
      "idempotency-key": idempotencyKey(options.idempotencyKey),
    };
    if (options.tag !== undefined) headers["cursus-tag"] = options.tag;
    if (options.key !== undefined) headers["cursus-key"] = options.key;
    for (const [name, value] of Object.entries(options.attributes ?? {})) headers[`cursus-attr-${name}`] = value;
    const data = isBytes ? (body as unknown as BodyInit) : isText ? body : JSON.stringify(body);
    const response = await this.request(`/v1/topics/${topic}/messages`, { method: "POST", headers, body: data });
    return ((await response.json()) as { id: string }).id;
  }

  /** Receives up to `maxMessages`; waits up to `waitSeconds` for the first. */
  async receive(
    subscription: string,
    options: { maxMessages?: number; waitSeconds?: number; visibilityTimeoutSeconds?: number; signal?: AbortSignal } = {},
  ): Promise<Message[]> {
    const request = {
      max_messages: options.maxMessages,
      wait_seconds: options.waitSeconds,
      visibility_timeout_seconds: options.visibilityTimeoutSeconds,
    };
    const timeout = this.#options.timeoutSeconds + (options.waitSeconds ?? 0);
    const path = `/v1/subscriptions/${subscription}/receive`;
    return (await this.#post<{ messages: Message[] }>(path, request, timeout, options.signal)).messages;
  }

  /** Settles up to 100 messages; one result for each, with an `error` if it failed. */
  async settle(subscription: string, items: SettleItem[]): Promise<SettleResult[]> {
    const path = `/v1/subscriptions/${subscription}/settle`;
    return (await this.#post<{ results: SettleResult[] }>(path, { items })).results;
  }

  async ack(subscription: string, message: Message): Promise<void> {
    await this.#settleOne(subscription, { receipt: message.receipt, action: "ack" });
  }

  async nack(subscription: string, message: Message, delaySeconds = 0): Promise<void> {
    await this.#settleOne(subscription, { receipt: message.receipt, action: "nack", delay_seconds: delaySeconds });
  }

  async deadLetter(subscription: string, message: Message, reason: string): Promise<void> {
    await this.#settleOne(subscription, { receipt: message.receipt, action: "dead_letter", reason });
  }

  /** Hides the message for so many seconds from now. Its receipt may change. */
  async extend(subscription: string, message: Message, seconds: number): Promise<void> {
    const item = { receipt: message.receipt, action: "extend", visibility_timeout_seconds: seconds } as const;
    const { receipt, visible_until } = await this.#settleOne(subscription, item);
    message.receipt = receipt ?? message.receipt;
    message.visible_until = visible_until ?? message.visible_until;
  }

  /** The bytes of a message's body, wherever they are. */
  async body(message: Message): Promise<Uint8Array> {
    if (message.body !== undefined) return new TextEncoder().encode(message.body);
    if (message.body_base64 !== undefined) return Uint8Array.from(atob(message.body_base64), (c) => c.charCodeAt(0));
    const response = await this.request(`/v1/messages/${message.id}/body`, { method: "GET" });
    return new Uint8Array(await response.arrayBuffer());
  }

  /** All items of a list, page by page: `client.each((after) => client.topics.listTopics({ after }))`. */
  async *each<T>(page: (after?: string) => Promise<{ items: T[]; next?: string }>): AsyncGenerator<T> {
    let after: string | undefined;
    do {
      const { items, next } = await page(after);
      yield* items;
      after = next;
    } while (after !== undefined);
  }

  async #settleOne(subscription: string, item: SettleItem): Promise<SettleResult> {
    const [result] = await this.settle(subscription, [item]);
    if (result?.error) throw new Problem(result.error);
    return result ?? {};
  }

  async #post<T>(path: string, body: unknown, timeout?: number, signal?: AbortSignal): Promise<T> {
    const init: RequestInit = {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    };
    if (signal) init.signal = signal;
    return (await (await this.request(path, init, timeout)).json()) as T;
  }
}

async function problemOf(response: Response): Promise<Problem> {
  const after = response.headers.get("retry-after") ?? "";
  const seconds = /^\d+$/.test(after) ? Number(after) : undefined;
  const text = await response.text();
  try {
    return new Problem(JSON.parse(text) as ProblemFields, seconds);
  } catch {
    // A proxy between says it in its own words.
    const retryable = [429, 502, 503, 504].includes(response.status);
    return new Problem({ status: response.status, detail: text.slice(0, 200), retryable }, seconds);
  }
}
