// A pleasant client of Cursus: publish, receive, a consumer loop, and a verifier of webhooks. The generated client of every
// other operation is `cursus-sdk/client`; its classes are `Client.topics`, `Client.subscriptions` and so on.

export { Client, Problem, type ClientOptions, type Message, type PublishOptions } from "./cursus.js";
export { Consumer, DeadLetter, Retry, type ConsumerOptions } from "./consumer.js";
export { verify, WebhookVerificationError, type Delivery } from "./webhook.js";
