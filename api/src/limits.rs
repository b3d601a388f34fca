//! Every limit a user can meet, in one place, with its unit in the name and the reason it exists. Errors name these
//! (I9), the schema's CHECK constraints repeat them, and a test holds the two together.

use std::ops::RangeInclusive;

/// Body of one message inside a JSON batch: a batch is parsed in memory.
pub const BATCH_BODY_BYTES_MAX: usize = 1 << 20;
/// Body of one raw publish; it streams to object storage and is never held in memory.
pub const RAW_BODY_BYTES_MAX: u64 = 100 << 20;
/// JSON text of a whole batch; what one request may occupy in a node.
pub const BATCH_BYTES_MAX: usize = 10 << 20;
/// Messages in one publish, ack, visibility or settle.
pub const BATCH_MESSAGES_MAX: usize = 100;
/// Messages in one receive.
pub const RECEIVE_MESSAGES: RangeInclusive<u32> = 1..=100;
/// JSON text of every other request: settings and receipts are small.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Attributes of one message.
pub const ATTRIBUTES_MAX: usize = 32;
/// Invalid fields that one problem names; who has more to mend sees the rest the next time.
pub const FIELD_ERRORS_MAX: usize = 20;
/// Characters of a request that an error repeats: enough to recognise a field by.
pub const ECHO_CHARS_MAX: usize = 200;
/// Characters of the detail of a problem, which may name several fields.
pub const DETAIL_CHARS_MAX: usize = 2_000;
/// Characters of an attribute's name.
pub const ATTRIBUTE_NAME_CHARS_MAX: usize = 128;
/// Names and values of one message's attributes together; they travel with every copy of the message.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 << 10;
/// Characters of a tag, key or ordering key.
pub const KEY_CHARS_MAX: usize = 128;
/// Characters of a content type.
pub const CONTENT_TYPE_CHARS_MAX: usize = 256;
/// Characters of a `dedup_id` or an `Idempotency-Key`.
pub const DEDUP_ID_CHARS_MAX: usize = 255;
/// Characters of a name of a topic or subscription.
pub const NAME_CHARS_MAX: usize = 128;
/// Characters of a `tracestate` that is kept; W3C asks for 512 at least.
pub const TRACESTATE_CHARS_MAX: usize = 1_024;
/// Visibility timeout in seconds: half a day hides a message longer than any job that still reports progress needs.
pub const VISIBILITY_SECONDS: RangeInclusive<u32> = 0..=43_200;
/// Visibility timeout when neither the call nor the subscription says one.
pub const VISIBILITY_SECONDS_DEFAULT: u32 = 30;
/// Long poll in seconds: shorter than the idle timeout of common proxies.
pub const WAIT_SECONDS: RangeInclusive<u32> = 0..=30;
/// Retention in seconds.
pub const RETENTION_SECONDS: RangeInclusive<u32> = 60..=2_678_400;
/// Retention when the topic says none: a long weekend.
pub const RETENTION_SECONDS_DEFAULT: u32 = 345_600;
/// Deduplication window in seconds.
pub const DEDUP_WINDOW_SECONDS: RangeInclusive<u32> = 60..=86_400;
/// Deduplication window when the topic says none.
pub const DEDUP_WINDOW_SECONDS_DEFAULT: u32 = 600;
/// Attempts before a message is dead-lettered.
pub const ATTEMPTS: RangeInclusive<u16> = 1..=1_000;
/// Attempts when the subscription says none.
pub const ATTEMPTS_DEFAULT: u16 = 16;
/// Delay of a `nack` in seconds, bounded like the visibility timeout that carries it.
pub const NACK_DELAY_SECONDS: RangeInclusive<u32> = VISIBILITY_SECONDS;
/// Messages in flight per subscription.
pub const IN_FLIGHT: RangeInclusive<u32> = 1..=1_000_000;
/// Messages in flight when the subscription says none.
pub const IN_FLIGHT_DEFAULT: u32 = 120_000;
/// Characters of the reason of a `dead_letter`.
pub const REASON_CHARS_MAX: usize = 512;
/// Items of one page of a list.
pub const PAGE: RangeInclusive<u32> = 1..=1_000;
/// Items of one page when the call says none.
pub const PAGE_DEFAULT: u32 = 100;
/// Characters of the cursor of a list, which holds a name.
pub const CURSOR_CHARS_MAX: usize = 256;
/// Characters of the cursor of usage, which holds two names.
pub const USAGE_CURSOR_CHARS_MAX: usize = 300;
/// Header lines and values of one request together.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Header lines of one request: as many as the HTTP/1.1 parser takes without allocating.
pub const HEADERS_MAX: usize = 100;
/// Base-2 logarithm of the window of a zstd request in bytes: 8 MiB, the most that RFC 9659 lets a sender ask for.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Receivers waiting in one node for one subscription.
pub const WAITING_RECEIVERS_MAX: usize = 10_000;
/// Bytes of publishes that wait in one node for the next turn.
pub const QUEUED_PUBLISH_BYTES_MAX: usize = 64 << 20;
/// Bytes of a body shown inside JSON; a longer one is fetched by its `body_url`, so that one message cannot swell an answer.
pub const INLINE_BODY_BYTES_MAX: usize = 256 << 10;
/// Bytes of bodies shown in one answer; the messages after them show a `body_url`.
pub const ANSWER_BODIES_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Bytes of blocks that one page of a browse holds in a node; the page ends there, and its `next` leads on.
pub const BROWSE_BLOCKS_BYTES_MAX: usize = 16 << 20;
/// Bytes of blocks that one receive holds in a node: a hundred messages of which only the head is read. What is beyond is
/// given back at once and handed out by the next receive.
pub const RECEIVE_BLOCKS_BYTES_MAX: usize = 32 << 20;
/// Seconds without a byte of a request body after which the service stops waiting for it.
pub const BODY_IDLE_SECONDS: u64 = 30;
/// Scopes of one key or token.
pub const SCOPES_MAX: usize = 32;
/// Characters of the name of a key.
pub const KEY_NAME_CHARS_MAX: usize = 128;
/// Seconds until a key expires, when it does: ten years at most.
pub const KEY_LIFE_SECONDS: RangeInclusive<u32> = 1..=315_360_000;
/// Seconds for which a rotated key stays valid: until the slowest deployment has the new one.
pub const KEY_OVERLAP_SECONDS: RangeInclusive<u32> = 0..=2_592_000;
/// The same when the call says none.
pub const KEY_OVERLAP_SECONDS_DEFAULT: u32 = 86_400;
/// Keys of one tenant that are not revoked.
pub const KEYS_PER_TENANT_MAX: u32 = 1_000;
/// Issuers of tokens: each costs a node a request now and then.
pub const ISSUERS_MAX: u32 = 100;
/// Invalid keys that an address may bring at once; later ones wait a second each.
pub const GUESSES_MAX: u32 = 20;
/// Characters of a key or token in `Authorization`.
pub const TOKEN_CHARS_MAX: usize = 16 << 10;
/// Characters of a URL, an `iss` or an `aud`.
pub const URL_CHARS_MAX: usize = 2_048;
/// Audiences of one issuer.
pub const AUDIENCES_MAX: usize = 16;
/// Characters of the name of a claim.
pub const CLAIM_CHARS_MAX: usize = 128;
/// Seconds that the clock of an issuer may be apart.
pub const CLOCK_SKEW_SECONDS: RangeInclusive<u32> = 0..=300;
/// The same when the issuer's settings say none.
pub const CLOCK_SKEW_SECONDS_DEFAULT: u32 = 30;
/// Days that an entry of the audit log is kept: a year, and the month in which somebody looks.
pub const AUDIT_DAYS: u32 = 400;
/// Bytes that one metering unit of a message covers; each started one counts.
pub const UNIT_BYTES: u64 = 64 << 10;
/// Days that usage is kept by minute: a minute can be compared with the same one a week before.
pub const USAGE_MINUTES_DAYS: u32 = 8;
/// Days that usage is kept by hour: a year to compare with, and the month after it.
pub const USAGE_HOURS_DAYS: u32 = 400;
/// Days that usage is kept by day: ten years, as long as books are kept.
pub const USAGE_DAYS_DAYS: u32 = 3_660;
/// Windows of one request for usage, by its granularity: a day of minutes, a month of hours, as many days as hours are kept.
pub const USAGE_WINDOWS_MAX: [u32; 3] = [1_440, 744, 400];
/// Any limit of a quota, in its unit: a petabyte, and still a whole number in every client.
pub const QUOTA: RangeInclusive<u64> = 1..=1_000_000_000_000_000;
/// The guaranteed part of a rate of a quota.
pub const QUOTA_GUARANTEED: RangeInclusive<u64> = 0..=*QUOTA.end();
/// Price plans.
pub const PLANS_MAX: u32 = 100;
/// Versions of one price plan: a new one every month for eight years.
pub const PLAN_VERSIONS_MAX: u32 = 100;
/// Days from which a tenant has another price plan: one every month for eight years.
pub const TENANT_PLANS_MAX: u32 = 100;
/// Tiers of one price, beside the last one, which has no end.
pub const TIERS_MAX: usize = 20;
/// For how many units a price may be.
pub const PRICE_PER_MAX: u32 = 1_000_000;
/// Units, GiB, GiB-hours or capacity-hours that one tier may hold.
pub const TIER_SIZE_MAX: u64 = 999_999_999_999_999;
/// Digits of a price before and after its point.
pub const PRICE_DIGITS: [u32; 2] = [6, 9];
/// Budgets of one tenant: each is compared with what it spends every few seconds.
pub const BUDGETS_MAX: u32 = 20;
/// Digits of the amount of a budget before and after its point; the finest coin has four places.
pub const BUDGET_DIGITS: [u32; 2] = [12, 4];
/// Alerts of one budget.
pub const ALERTS_MAX: usize = 10;
/// At which percent of a budget an alert may be sent: above 100, too, for what is not to be stopped.
pub const ALERT_PERCENT: RangeInclusive<u16> = 1..=1_000;
/// The percents of a budget that says none.
pub const ALERT_PERCENTS_DEFAULT: [u16; 3] = [50, 80, 100];
/// Days that the alerts of a month are kept: a year to look back on, and the month after it.
pub const ALERTS_DAYS: u32 = 400;
/// Event sinks of one tenant: each is a delivery of its own.
pub const EVENT_SINKS_PER_TENANT_MAX: u32 = 20;
/// Events that wait for one sink before no more usage is made into events for it; usage itself is kept anyway.
pub const EVENTS_WAITING_MAX: u32 = 10_000;
/// The same for events that are not made from what is kept anyway: beyond it they are left out.
pub const EVENTS_HELD_MAX: u32 = 11_000;
/// Bound of the events that wait for one sink: [`EVENTS_HELD_MAX`], and what concurrent transactions may add beyond it.
pub const EVENTS_SHOWN_MAX: u32 = 12_000;
/// Events in one request to a sink that takes batches.
pub const EVENT_BATCH_MAX: u32 = 100;
/// Weight of a customer in a fair subscription.
pub const FAIRNESS_WEIGHT: RangeInclusive<u32> = 1..=100;
/// Weights that a subscription names; who is not named has weight 1.
pub const FAIRNESS_WEIGHTS_MAX: usize = 100;
/// Customers of a fair subscription that are told apart at once, those served lately included; who comes beyond shares one
/// place with the others that do.
pub const FAIRNESS_KEYS_MAX: usize = 1_000;
/// Runs of messages that wait in the fair order of a subscription, in each lane of its topic: up to 64 messages of one
/// customer each. With so many it looks no further ahead until some were handed out.
pub const FAIRNESS_RUNS_MAX: u32 = 20_000;
/// Messages that a fair subscription looks ahead each time that something is handed out.
pub const FAIRNESS_AHEAD_MESSAGES: u32 = 4_096;
/// Customers shown in the stats of a fair subscription.
pub const FAIRNESS_SHOWN_MAX: usize = 20;
