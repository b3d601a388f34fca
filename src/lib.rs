//! Cursus: a serverless HTTP messaging service. Nodes keep nothing, Postgres keeps metadata, object storage keeps payloads;
//! anything that speaks HTTP publishes, receives and settles.
//!
//! # Map
//!
//! An arrow points from the caller to what it calls. The crate `api` (wire types, names, limits, errors) lies below all.
//!
//! ```text
//! main ─▶ app ─▶ listen, http ─▶ engine ─▶ store      Postgres: all SQL, one table a file
//!    │       └─▶ worker ───────▶ engine ─▶ blob       object storage: S3 or a directory
//!    │                                  └▶ outbound   requests to others: endpoints, event sinks, key sets
//!    └──▶ cli ─▶ the crate cursus-sdk                 commands for people: to a node over HTTP, as any client
//! below: config  network  telemetry  shutdown  clock  causes  hex  repeat  pace  embedded (Postgres)
//!        turnstile (slots shared fairly by tenants)  descriptors (open files)  disk (room on it)
//! ```
//!
//! A request makes three hops: a handler of `http::routes` (typed extractors, one call), a verb of `engine`, a statement of
//! `store`. `http::request` reads what comes in, `http::answer` writes what goes out. `worker` runs the background duties, each
//! on one node of the fleet at a time.
//!
//! `engine` is a house of rooms. A room uses rooms below it and never one above:
//!
//! ```text
//! operate             what an operator does: tenants, keys, issuers, quotas, the audit log
//! bill                money: prices, plans, budgets, usage and the events that report it
//! events              CloudEvents to the sinks of tenants
//! fleet               a node among others: heartbeat, watch, wake, readiness
//! resources           topics and subscriptions: create, change, delete
//! push                deliveries to the endpoints of push subscriptions
//! publish   receive   the verbs; receive has settle, dead letters and browse
//! order               who is next when it is not the order of the log; fair is the first such order
//! lease               receipts, and leases off the turn: redelivery of subscriptions with an order of their own
//! turn                the commit loop: gather, assemble, commit, hand out
//! catalog             topics and subscriptions as this node knows them
//! subscriber          a subscription on this node: waiters, lanes, what is in flight and what is due
//! log                 the bytes of messages: payloads, blocks, cache, reader, uploads
//! lifecycle           where payloads lie until they are gone: rotate, offload, expire, collect
//! meter               counting, without prices
//! quota               rates and caps on this node, and its share of the fleet's
//! access              who calls, and what they may do
//! limit error duty held inbox mask page   leaves that every room may use
//! ```
//!
//! `impl Engine` stands only in the verbs and above. A lower room owns a struct with just the parts that it needs: `Gate`,
//! `Quotas`, `Tally`, `Reader`, `Uploads`, `Turns`, `Leases`, `Dispenser`.
//!
//! Where a new thing goes: a **limit** to `api::limits`, its bound to the table in `tests/it/schema/openapi.rs`. An **error
//! code** to `api::error`; the compiler leads to the rest. A **field of a subscription** to its type in `api`, a column, the row
//! in `store::subscription`, and the merge in `engine::resources`. A **background duty** is a file beside its rule with
//! `impl Duty`, and a line in `worker`. A **meter** is a row of `api::usage::Meter` and the place that counts it. A **metric** is
//! a field and a line in the `register` of its room. A **scope** goes to `api::scope` and the extractors of
//! `http::request::caller`. A **claim order** is a line in `engine::order`, or a step of `store/turn.sql`. A **flag** goes to
//! `config::args`. A **command** for people is a file of `cli` and a line in its list. An **object store** is a
//! `blob::backend::Backend` and a variant of `blob::Storage`.
//!
//! # Who calls
//!
//! An extractor of `http::request::caller` says what a route asks for, and gives the handler a name from the path only together
//! with the permission for it. `engine::access` finds the caller: an API key or a token of an issuer opens a tenant with
//! scopes; a token never more than the ceiling of its issuer (`access::ceiling`). A node remembers whom it let in until the
//! installation's version of access changes, which `fleet::watch` notices within a second. Operators create tenants, keys and
//! issuers (`operate`); each change is recorded by its own transaction (`access::audit`).
//!
//! # The life of a message
//!
//! - **Publish.** `http::routes::publish` encodes it into records (`log::payload`); `publish` queues them for the turn of their
//!   topic's loop. While one turn commits the next one gathers: publishes are joined into one block a lane, changes of leases
//!   folded into one mask per lease and action, receivers into one claim a subscription (`turn::assemble`). One call of a
//!   function of `store/turn.sql` does it in one commit, and only then do the requests get their answers (`turn::hand_out`).
//!   Bodies above the hot limit are streamed to an object first (`log::upload`). Keys that guard against publishing twice are
//!   looked up and stored by the turn; when one is known, the turn stores nothing of its block, and `publish::idempotent`
//!   answers from what was stored.
//! - **Receive.** A receiver waits in the subscription's wait queue (`subscriber`) for a turn, which claims messages that are due
//!   again and then fresh ones (`turn::claims`). The payload comes from the cache, the hot slot, or a ranged read of an object
//!   (`log::reader`).
//! - **Order.** A subscription with an order of its own is served off the turn (`order`): messages from ahead of the cursor join
//!   a line as waiting leases, and the line decides which are next. A plain subscription costs nothing for it.
//! - **Push.** A subscription with an endpoint has a driver on one node (`push::drive`), which waits for leases like a receiver,
//!   has the requests sent by `outbound`, and settles by the answers. A node drives what names it in `push_endpoint` for as long
//!   as it sends heartbeats (`push::assign`). How much is sent is decided by `push::flow`, alone from what the endpoint answers.
//! - **Settle.** Acks, nacks and changes of visibility are masked changes of leases in the next turn. A dead letter is set aside
//!   by a turn, or by the duty `receive::used_up` when nobody receives, and moved to its topic by a task, many at once
//!   (`receive::dead_letter`). An ack leaves no trace. What takes messages from a lease in another way records it
//!   (`store::lost_lease`), so that a repeated ack can be told from a late one.
//! - **Quotas.** `quota` is asked before a request is read, before a publish and a receive, and in the transaction that creates
//!   a topic or subscription. Rates are buckets in memory that fill at the node's share of the fleet's quota; nodes exchange
//!   their demand four times a second (`quota::exchange`), so no request waits for the database. When publishes wait too long,
//!   what is above a guarantee is refused; when a turn cannot take all, guaranteed publishes go first and tenants alternate.
//! - **Afterwards.** `lifecycle::expire` deletes what is consumed or too old, `lifecycle::offload` packs what is still needed
//!   after the hot window into objects and truncates the slot, `lifecycle::collect` deletes objects without references.
//! - **Metering.** A publish measures its messages (`meter::measure`) and stores the measure in their block, so it costs no row
//!   and no statement. `meter::blocks` adds blocks up by minute, lane by lane from where it stopped; deliveries and cold reads
//!   are counted in memory and flushed every second (`meter::deliveries`); minutes become hours and days (`meter::roll_up`).
//!   Guaranteed capacity is metered by time (`meter::capacity`). Prices are applied when usage is read: `bill::schedule` is a
//!   pure function of the running totals of the month and the plans that the tenant has, day by day.
//! - **Budgets.** The cost of a month is compared with the tenant's budgets every ten seconds (`bill::spend`): alerts are stored
//!   and sent by one commit, and a spent budget may stop the tenant, which nodes learn like a change of its quota.
//!
//! # Events
//!
//! Usage that is final, and other things that happen to a tenant, become CloudEvents for its sinks (`events`). An event is
//! stored for each sink by the transaction of what happened, with an id computed from it. The duty `events` turns usage into
//! events, window by window, and begins relays: each claims one sink and publishes in order, outside of any transaction, to
//! the topic of the sink. A sink with a URL has one of the system tenant, from which `push` delivers in order. An event is
//! deleted once it is published to a topic of a tenant, or settled after push. Delivery is at-least-once, and safe to repeat.
//!
//! # Invariants
//!
//! - **I1 durable** a publish is answered after its block is committed: `engine::turn`.
//! - **I2 one place** a message is ahead of the cursor, in one lease, or done: `store/turn.sql`, `engine::lease::plan`,
//!   `engine::order::dispense`.
//! - **I3 current lease** only the current lease settles: `store/turn.sql`.
//! - **I4 order of commit** offsets are given under the lane's lock, which is taken and never updated: `store/turn.sql`.
//! - **I5 reachable** payloads outlive every reader that may need them: `engine::lifecycle`.
//! - **I7 tenant first** every look-up starts from a tenant, and a tenant from a caller: `engine::catalog`, `engine::access`.
//! - **I8 honest bill** the measure of a block is in the block and commits with it; each block is counted once, before it can be
//!   deleted: `engine::meter::blocks`. What no block records is flushed by number: `engine::meter::deliveries`; capacity is posted
//!   under a lock up to a time: `engine::meter::capacity`.
//! - **I9 bounded** every queue, batch, body, wait and cache has a limit: `api::limits`.
//! - **I10 one clock** the database's: `clock`.
//!
//! What was committed may be lost with a database that is replaced by an older one. Then all that nodes remember is dropped,
//! and no id is given out again: `store::history`.
//!
//! I6 (ordering keys) belongs to a capability that does not exist yet.
//!
//! # What a long transaction must not bend
//!
//! A transaction that holds back vacuum keeps every dead row version. So no hot row is updated in place: a publish locks its
//! lane's row and reads the lane's end from the last block; a cursor's move raises `version`, which is part of its key, so
//! that a look-up meets the newest entry first; expired leases are found from a moving lower bound; payloads are inserted
//! and truncated. And no hot row is joined by key: the turn finds rows by LATERAL look-ups and changes them by `ctid`,
//! because a join whose plan was made while a table is small walks the whole index, the dead entries included.
//!
//! # Absences
//!
//! No SQL outside `store`, no S3 type outside `blob`, no outbound request outside `outbound` (but to S3), no environment variable
//! outside `config`, no status code outside `http` and `api`, no clock outside `clock`; `http` and `worker` do not know each
//! other, and `cli` knows neither (`tests/it/schema/tidy.rs`). No arrow points up (`tests/it/schema/rooms.rs`). No statement
//! names tables of home and of the lanes, so that lanes can move to servers of their own (`store::group`,
//! `tests/it/schema/groups.rs`).

pub mod app;
pub mod blob;
pub mod causes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod disk;
pub mod embedded;
pub mod engine;
pub mod hex;
pub mod http;
pub mod listen;
pub mod network;
pub mod outbound;
mod pace;
pub mod repeat;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod turnstile;
pub mod worker;
