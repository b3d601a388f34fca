//! Every limit of the API: the unit is in the name, the reason in the comment. Errors state these limits (I9). The
//! CHECK constraints of the database schema repeat those of stored settings, and tests compare the two.

use std::ops::RangeInclusive;

/// Bytes of one message's body in a JSON batch; a batch is parsed in memory.
pub const BATCH_BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of the body of a raw publish. A large body streams to object storage and is never held in memory as a whole.
pub const RAW_BODY_BYTES_MAX: u64 = 100 << 20;
/// Bytes of the JSON text of a batch: the memory that one request may occupy on a node.
pub const BATCH_BYTES_MAX: usize = 10 << 20;
/// Items of one publish batch, ack, visibility or settle request.
pub const BATCH_MESSAGES_MAX: usize = 100;
/// Messages of one receive request.
pub const RECEIVE_MESSAGES: RangeInclusive<u32> = 1..=100;
/// Bytes of the JSON text of any other request; settings and receipts are small.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Attributes of one message.
pub const ATTRIBUTES_MAX: usize = 32;
/// Invalid fields that one problem names. Further ones are reported when these are corrected.
pub const FIELD_ERRORS_MAX: usize = 20;
/// Characters of request text that an error repeats: enough to recognise a field.
pub const ECHO_CHARS_MAX: usize = 200;
/// Characters of a problem's `detail`, which may name several fields.
pub const DETAIL_CHARS_MAX: usize = 2_000;
/// Characters of an attribute's name.
pub const ATTRIBUTE_NAME_CHARS_MAX: usize = 128;
/// Bytes of the names and values of one message's attributes together; they travel with every copy of the message.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 << 10;
/// Characters of a tag, a key or a fairness key.
pub const KEY_CHARS_MAX: usize = 128;
/// Characters of a content type.
pub const CONTENT_TYPE_CHARS_MAX: usize = 256;
/// Characters of a `dedup_id` or an `Idempotency-Key`.
pub const DEDUP_ID_CHARS_MAX: usize = 255;
/// Characters of the name of a topic, subscription, tenant or other named resource.
pub const NAME_CHARS_MAX: usize = 128;
/// Characters of a `tracestate` that is kept; W3C Trace Context requires at least 512.
pub const TRACESTATE_CHARS_MAX: usize = 1_024;
/// Visibility timeout in seconds. Twelve hours: a job that takes longer can extend it.
pub const VISIBILITY_SECONDS: RangeInclusive<u32> = 0..=43_200;
/// Visibility timeout in seconds when neither the request nor the subscription sets one.
pub const VISIBILITY_SECONDS_DEFAULT: u32 = 30;
/// Wait of a long poll in seconds; shorter than the idle timeout of common proxies.
pub const WAIT_SECONDS: RangeInclusive<u32> = 0..=30;
/// Retention of a topic in seconds: one minute to 31 days.
pub const RETENTION_SECONDS: RangeInclusive<u32> = 60..=2_678_400;
/// Retention in seconds when the topic sets none: four days, a long weekend.
pub const RETENTION_SECONDS_DEFAULT: u32 = 345_600;
/// Deduplication window of a topic in seconds.
pub const DEDUP_WINDOW_SECONDS: RangeInclusive<u32> = 60..=86_400;
/// Deduplication window in seconds when the topic sets none.
pub const DEDUP_WINDOW_SECONDS_DEFAULT: u32 = 600;
/// Delivery attempts before a message is dead-lettered.
pub const ATTEMPTS: RangeInclusive<u16> = 1..=1_000;
/// Delivery attempts when the subscription sets none.
pub const ATTEMPTS_DEFAULT: u16 = 16;
/// Delay of a `nack` in seconds; it is stored as a visibility timeout and has the same bounds.
pub const NACK_DELAY_SECONDS: RangeInclusive<u32> = VISIBILITY_SECONDS;
/// Messages in flight in one subscription.
pub const IN_FLIGHT: RangeInclusive<u32> = 1..=1_000_000;
/// Messages in flight when the subscription sets no limit.
pub const IN_FLIGHT_DEFAULT: u32 = 120_000;
/// Characters of the reason of a `dead_letter` or a suspension.
pub const REASON_CHARS_MAX: usize = 512;
/// Seconds within which an endpoint of a push subscription must answer; Standard Webhooks asks for 15 to 30.
pub const PUSH_TIMEOUT_SECONDS: RangeInclusive<u32> = 1..=30;
/// The same when the subscription sets none.
pub const PUSH_TIMEOUT_SECONDS_DEFAULT: u32 = 15;
/// Messages of one request of a push subscription.
pub const PUSH_BATCH_MESSAGES: RangeInclusive<u32> = 1..=100;
/// Requests at the same time to one endpoint.
pub const PUSH_CONCURRENCY: RangeInclusive<u32> = 1..=1_000;
/// The same when the subscription sets no limit.
pub const PUSH_CONCURRENCY_DEFAULT: u32 = 64;
/// Requests a second or a minute to one endpoint.
pub const PUSH_RATE: RangeInclusive<u32> = 1..=100_000;
/// Seconds between two attempts to deliver a message: up to a day, the longest pause of Standard Webhooks.
pub const PUSH_RETRY_SECONDS: RangeInclusive<u32> = 1..=86_400;
/// Pauses in a list of pauses.
pub const PUSH_DELAYS_MAX: usize = 50;
/// Headers that a subscription adds to its requests.
pub const PUSH_HEADERS_MAX: usize = 20;
/// Characters of the name of such a header.
pub const PUSH_HEADER_CHARS_MAX: usize = 128;
/// Characters of the value of such a header, a user name, a password or a token.
pub const PUSH_VALUE_CHARS_MAX: usize = 2_048;
/// Bytes of the secret of an endpoint (Standard Webhooks).
pub const PUSH_SECRET_BYTES: RangeInclusive<usize> = 24..=64;
/// Seconds for which a former secret goes on to sign after a rotation: up to a week.
pub const PUSH_OVERLAP_SECONDS: RangeInclusive<u32> = 0..=604_800;
/// The same when the rotation sets none: a day.
pub const PUSH_OVERLAP_SECONDS_DEFAULT: u32 = 86_400;
/// Seconds of failures after which an endpoint is disabled.
pub const PUSH_DISABLE_SECONDS: RangeInclusive<u32> = 60..=2_678_400;
/// The same when the subscription sets none: five days.
pub const PUSH_DISABLE_SECONDS_DEFAULT: u32 = 432_000;
/// Bytes of a body that a push request has. A longer one is read from the service.
pub const PUSH_BODY_BYTES_MAX: usize = 10 << 20;
/// Bytes of an endpoint's answer that are kept with an attempt.
pub const PUSH_ANSWER_BYTES_MAX: usize = 256;
/// Messages that one request hands out again.
pub const RESEND_MESSAGES_MAX: u32 = 100_000;
/// Items of one page of a list.
pub const PAGE: RangeInclusive<u32> = 1..=1_000;
/// Items of one page when the request sets no limit.
pub const PAGE_DEFAULT: u32 = 100;
/// Characters of the cursor of a list, which holds a name.
pub const CURSOR_CHARS_MAX: usize = 256;
/// Characters of the cursor of usage, which holds two names.
pub const USAGE_CURSOR_CHARS_MAX: usize = 300;
/// Bytes of all header names and values of a request together.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Headers of a request: as many as the HTTP/1.1 parser reads without allocating.
pub const HEADERS_MAX: usize = 100;
/// Base-2 logarithm of the window, in bytes, of a zstd-encoded request: 8 MiB, the maximum of RFC 9659.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Receive requests of one subscription that wait on one node.
pub const WAITING_RECEIVERS_MAX: usize = 10_000;
/// Bytes of publishes that wait on one node for the next turn; as many may wait for lanes that other transactions hold.
pub const QUEUED_PUBLISH_BYTES_MAX: usize = 64 << 20;
/// Bytes of request bodies and answers, of more than 64 KiB each, that one node holds at the same time. One tenant may hold
/// two thirds.
pub const HELD_BODIES_BYTES_MAX: usize = 256 << 20;
/// Bytes of a body inside JSON. A longer body is read from its `body_url`, so that one message cannot inflate a
/// response.
pub const INLINE_BODY_BYTES_MAX: usize = 256 << 10;
/// Bytes of all bodies inside one JSON response. The messages after them get a `body_url`.
pub const ANSWER_BODIES_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Bytes of blocks that one page of a browse holds on a node. The page ends there, and its `next` leads on.
pub const BROWSE_BLOCKS_BYTES_MAX: usize = 16 << 20;
/// Bytes of blocks that one receive holds on a node. Messages beyond it are returned to the subscription at once and
/// handed out by the next receive.
pub const RECEIVE_BLOCKS_BYTES_MAX: usize = 32 << 20;
/// Seconds without a byte of a request body after which the request fails.
pub const BODY_IDLE_SECONDS: u64 = 30;
/// Seconds without progress of a client that reads a response, after which its connection or stream is closed. On
/// average it must read 16 KiB per second.
pub const ANSWER_IDLE_SECONDS: u64 = 30;
/// Scopes of one key or token.
pub const SCOPES_MAX: usize = 32;
/// Characters of the name of a key.
pub const KEY_NAME_CHARS_MAX: usize = 128;
/// Seconds until a key expires, if it does: at most ten years.
pub const KEY_LIFE_SECONDS: RangeInclusive<u32> = 1..=315_360_000;
/// Seconds for which a rotated key stays valid: up to 30 days, until the slowest deployment has the new one.
pub const KEY_OVERLAP_SECONDS: RangeInclusive<u32> = 0..=2_592_000;
/// Seconds for which a rotated key stays valid when the request sets none.
pub const KEY_OVERLAP_SECONDS_DEFAULT: u32 = 86_400;
/// Keys of one tenant that are not revoked.
pub const KEYS_PER_TENANT_MAX: u32 = 1_000;
/// Issuers of tokens; each costs every node a request from time to time.
pub const ISSUERS_MAX: u32 = 100;
/// Bytes of the key set (JWKS) of an issuer.
pub const KEY_SET_BYTES_MAX: usize = 256 << 10;
/// Public keys of one issuer that are used, the first of its key set.
pub const KEY_SET_KEYS_MAX: usize = 100;
/// Public keys that one token is checked with: each costs a verification of its signature. An issuer with more keys of
/// one algorithm names the key in its tokens (`kid`).
pub const TOKEN_KEYS_TRIED_MAX: usize = 10;
/// Invalid keys that one network may present, or that may be presented with the id of one key, in a burst. Beyond it one
/// more is checked per second.
pub const GUESSES_MAX: u32 = 20;
/// Characters of a key or token in `Authorization`.
pub const TOKEN_CHARS_MAX: usize = 16 << 10;
/// Characters of a URL, an `iss` or an `aud`.
pub const URL_CHARS_MAX: usize = 2_048;
/// Audiences of one issuer.
pub const AUDIENCES_MAX: usize = 16;
/// Characters of the name of a claim.
pub const CLAIM_CHARS_MAX: usize = 128;
/// Tolerated difference between the clocks of an issuer and of the service, in seconds.
pub const CLOCK_SKEW_SECONDS: RangeInclusive<u32> = 0..=300;
/// Tolerated clock difference in seconds when the issuer's settings set none.
pub const CLOCK_SKEW_SECONDS_DEFAULT: u32 = 30;
/// Days for which an entry of the audit log is kept: a year, and a month to review it.
pub const AUDIT_DAYS: u32 = 400;
/// Bytes of a message that one metering unit covers; a started unit counts as a whole.
pub const UNIT_BYTES: u64 = 64 << 10;
/// Days for which usage is kept by the minute: a minute can be compared with the same one of a week before.
pub const USAGE_MINUTES_DAYS: u32 = 8;
/// Days for which usage is kept by the hour: a year to compare with, and the month after it.
pub const USAGE_HOURS_DAYS: u32 = 400;
/// Days for which usage is kept by the day: ten years, the usual retention of accounts.
pub const USAGE_DAYS_DAYS: u32 = 3_660;
/// Windows of one usage request, for windows of a minute, an hour and a day: one day of minutes, one month of hours,
/// and as many days as hours are kept.
pub const USAGE_WINDOWS_MAX: [u32; 3] = [1_440, 744, 400];
/// Any limit of a quota, in its unit: up to 10^15, which every client can represent as a whole number.
pub const QUOTA: RangeInclusive<u64> = 1..=1_000_000_000_000_000;
/// Guaranteed part of a rate of a quota, in its unit.
pub const QUOTA_GUARANTEED: RangeInclusive<u64> = 0..=*QUOTA.end();
/// Price plans.
pub const PLANS_MAX: u32 = 100;
/// Versions of one price plan: a new one every month for eight years.
pub const PLAN_VERSIONS_MAX: u32 = 100;
/// Changes of one tenant's price plan: one every month for eight years.
pub const TENANT_PLANS_MAX: u32 = 100;
/// Tiers of one price, apart from the last one, which has no end.
pub const TIERS_MAX: usize = 20;
/// Units that one price may be quoted for.
pub const PRICE_PER_MAX: u32 = 1_000_000;
/// Size of one tier in units, GiB, GiB-hours or capacity-hours.
pub const TIER_SIZE_MAX: u64 = 999_999_999_999_999;
/// Digits of a price before and after the decimal point.
pub const PRICE_DIGITS: [u32; 2] = [6, 9];
/// Budgets of one tenant; each is compared with the tenant's cost every few seconds.
pub const BUDGETS_MAX: u32 = 20;
/// Digits of a budget's amount before and after the decimal point; the smallest currency unit has four decimal places.
pub const BUDGET_DIGITS: [u32; 2] = [12, 4];
/// Alerts of one budget.
pub const ALERTS_MAX: usize = 10;
/// Percentages of a budget at which an alert may be emitted. Above 100 for budgets without a hard stop.
pub const ALERT_PERCENT: RangeInclusive<u16> = 1..=1_000;
/// Percentages of a budget that sets none.
pub const ALERT_PERCENTS_DEFAULT: [u16; 3] = [50, 80, 100];
/// Days for which the alerts of a month are kept: a year to compare with, and the month after it.
pub const ALERTS_DAYS: u32 = 400;
/// Event sinks of one tenant; each needs its own delivery.
pub const EVENT_SINKS_PER_TENANT_MAX: u32 = 20;
/// Events waiting for one sink beyond which no more usage is turned into events for it. The usage itself is kept and
/// can become events later.
pub const EVENTS_WAITING_MAX: u32 = 10_000;
/// Events waiting for one sink beyond which all other events are dropped: they are not derived from data that is kept.
pub const EVENTS_HELD_MAX: u32 = 11_000;
/// Bound of the events that wait for one sink: [`EVENTS_HELD_MAX`], and what concurrent transactions may add beyond it.
pub const EVENTS_SHOWN_MAX: u32 = 12_000;
/// Events in one request to a sink that accepts batches.
pub const EVENT_BATCH_MAX: u32 = 100;
/// Weight of a customer in a fair subscription.
pub const FAIRNESS_WEIGHT: RangeInclusive<u32> = 1..=100;
/// Weights that a fair subscription lists; a customer that is not listed has weight 1.
pub const FAIRNESS_WEIGHTS_MAX: usize = 100;
/// Customers of a fair subscription that are kept apart at the same time, including recently served ones. All further
/// ones share one turn.
pub const FAIRNESS_KEYS_MAX: usize = 1_000;
/// Runs of messages (up to 64 messages of one customer each) that wait in the fair order of a subscription, per lane of
/// its topic. At this number no more messages are read ahead until some are handed out.
pub const FAIRNESS_RUNS_MAX: u32 = 20_000;
/// Messages that a fair subscription reads ahead each time it hands messages out.
pub const FAIRNESS_AHEAD_MESSAGES: u32 = 4_096;
/// Customers listed in the stats of a fair subscription.
pub const FAIRNESS_SHOWN_MAX: usize = 20;
