// Verifies deliveries of push subscriptions (Standard Webhooks).

import { Webhook, WebhookVerificationError } from "standardwebhooks";

export { WebhookVerificationError };

/** A verified delivery. `id` is the same in each attempt: drop one that was seen before. */
export interface Delivery {
  id: string;
  body: string;
}

/**
 * The delivery, if one of the secrets (`whsec_…`) signed it less than five minutes ago; else throws
 * `WebhookVerificationError`. Give both secrets while one replaces the other. The body is the text as it came.
 */
export function verify(secrets: string | string[], headers: Record<string, string>, body: string): Delivery {
  const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
  let failure: unknown = new WebhookVerificationError("no secret");
  for (const secret of [secrets].flat()) {
    try {
      new Webhook(secret).verify(body, lower);
      return { id: lower["webhook-id"]!, body };
    } catch (error) {
      // The signature was right, and the body is no JSON, which the library wants.
      if (error instanceof SyntaxError) return { id: lower["webhook-id"]!, body };
      failure = error;
    }
  }
  throw failure;
}
