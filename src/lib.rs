//! Cursus: a serverless HTTP messaging service. Nodes keep nothing, Postgres keeps metadata, object storage keeps
//! payloads; anything that speaks HTTP publishes, receives and settles.
//!
//! # Map
//!
//! Arrows point from who calls to who is called; the crate `api` (wire types, names, limits, errors) lies below all.
//!
//! ```text
//! main ─▶ app ─▶ listen, http ─▶ engine ─▶ store   Postgres: all SQL, one table a file
//!             └▶ worker ──────▶ engine ─▶ blob    object storage: S3 or a directory
//!                                      └▶ outbound   requests to others: key sets of issuers, event sinks
//!   config  telemetry  shutdown  clock  hex  embedded (the private Postgres)  turnstile (places that tenants share fairly)
//! ```
//!
//! A request makes three hops: a handler of `http` (typed extractors, one call), a verb of `engine` (a file each), a
//! statement of `store`. `worker` runs the duties that nobody waits for, one node of the fleet at a time.
//!
//! # Who calls
//!
//! An extractor of `http::request::caller` says what a route asks for, and gives the handler a name from the path only
//! together with the permission for it. `engine::access` finds out who that is: an API key or a token of an issuer opens a tenant with
//! scopes, remembered by the node until the installation's version of access changes, which `engine::watch` notices within
//! a second. Operators make tenants, keys and issuers (`engine::{tenants, keys, issuers}`); each change is written down by
//! its own transaction (`engine::audit`).
//!
//! # The life of a message
//!
//! - **Publish.** `http::routes::publish` encodes it into `engine::payload` records; `engine::publish` queues them for the turn of
//!   its topic's loop. While one turn commits the next one gathers (`engine::turn`): publishes are joined into one block a
//!   lane, acks folded into one mask a lease, receivers into one claim a subscription. One call of a
//!   function of `store/turn.sql`, a shorter one where one block is all there is, does it in one commit, and only
//!   then is anybody answered. Bodies above the hot limit are streamed to an object first (`engine::upload`); keys that
//!   guard against publishing twice have a transaction of their own (`engine::keyed`).
//! - **Receive.** `engine::receive` first looks for leases past their deadline (`engine::redeliver`), then waits in the
//!   subscription's queue (`engine::subscriber`) for a turn to claim fresh messages. The payload comes from the cache, the
//!   hot slot, or a ranged read of an object (`engine::reader`).
//! - **Take turns.** In a fair subscription no burst of one customer stands in front of the others. Its receivers are served
//!   off the turn (`engine::fairness`): messages from ahead of the cursor join a line as waiting leases, and whose turn it
//!   is says weighted fair queueing by virtual time. A plain subscription costs nothing for it.
//! - **Settle.** An ack clears a bit in the next turn. What splits a lease — extend, nack, dead letter — locks its rows,
//!   plans in pure functions (`engine::plan`) and writes the difference.
//! - **Quotas.** `engine::quota` is asked before a request is read, before a publish and a receive, and in the transaction
//!   that makes a topic or subscription. Rates are buckets in memory that fill at the node's share of the fleet's quota;
//!   four times a second nodes exchange what is asked of them (`engine::quota::exchange`), so no request waits for the
//!   database. When publishes wait too long, what is above a guarantee is refused; when a turn cannot take all, what is
//!   guaranteed goes first and tenants take turns.
//! - **Afterwards.** `engine::expire` deletes what is consumed or too old, `engine::offload` packs what is still needed
//!   after the hot window into objects and truncates the slot, `engine::collect` deletes objects nobody refers to.
//! - **Metering.** A publish measures its messages (`engine::units`) and stores the measure in their block, so it costs no
//!   row and no statement. `engine::meter` adds blocks up by minute, lane by lane from where it stopped; deliveries and cold
//!   reads are counted in memory and flushed every second (`engine::tally`); minutes become hours and days
//!   (`engine::roll_up`), and `engine::usage` reads all three as one. What it costs is a pure function of running totals of the
//!   month (`engine::price`) with the versions of plans (`engine::plans`) that the tenant has, day by day
//!   (`engine::tenant_plans`); `engine::bill` and `engine::focus` show months of it. Guaranteed capacity is metered by time
//!   (`engine::capacity`), by whoever changes a quota and by the metering duty.
//! - **Budgets.** What a month costs is compared with the tenant's budgets every ten seconds (`engine::spend`): alerts are
//!   noted and sent by one commit, and a spent budget may stop the tenant, which nodes learn like a change of its quota.
//!
//! # Events
//!
//! Usage that is over, and whatever else the service has to tell, becomes CloudEvents for the sinks of tenants
//! (`engine::events`). An event is kept for each sink by the transaction of what happened, with an id computed from it; the
//! duty `events` makes usage into events window by window as soon as a window is final, and begins deliveries: each claims
//! one sink, sends in order outside of any transaction, and forgets what was taken. At least once, and safe to repeat.
//!
//! # Invariants
//!
//! - **I1 durable** a publish is answered after its block is committed: `engine::turn`.
//! - **I2 one place** a message is ahead of the cursor, in one lease, or done: `store/turn.sql`, `engine::plan`,
//!   `engine::fairness::dispense`.
//! - **I3 current lease** only the current lease settles: `engine::receipt`, `engine::plan`.
//! - **I4 order of commit** offsets are given under the lane's lock, which is taken and never updated:
//!   `store/turn.sql`.
//! - **I5 reachable** payloads outlive everybody who may need them: `engine::expire`, `engine::offload`, `engine::collect`.
//! - **I7 tenant first** every look-up starts from a tenant, and a tenant from a caller: `engine::catalog`, `engine::access`.
//! - **I8 honest bill** what a block costs stands in the block and commits with it; each block is counted once, by
//!   whoever comes first, before it can be deleted: `engine::meter`. What no block records is flushed by number: `engine::tally`;
//!   capacity is posted under a lock up to a time: `engine::capacity`.
//! - **I9 bounded** every queue, batch, body, wait and cache has a limit: `api::limits`.
//! - **I10 one clock** the database's: `clock`.
//!
//! I6 (ordering keys) belongs to a capability that does not exist yet.
//!
//! # What a long transaction must not bend
//!
//! A transaction that holds back vacuum keeps every dead row version. So no hot row is updated in place: a publish locks its
//! lane's row and reads the lane's end from the last block; a cursor's move raises `version`, which is part of its key, so
//! that a look-up meets the newest entry first; expired leases are sought from a moving lower bound; payloads are inserted
//! and truncated. And no hot row is joined by key: the turn finds rows by LATERAL look-ups and changes them by `ctid`,
//! because a join whose plan was made while a table is small walks the whole index, the dead entries included.
//!
//! # Absences
//!
//! No SQL outside `store`, no S3 type outside `blob`, no outbound request outside `outbound` (but to S3), no environment variable outside `config`, no status code outside
//! `http` and `api`, no clock outside `clock`; `http` and `worker` do not know each other. `tests/it/schema/tidy.rs` holds this.
//! No statement names tables of home and of the lanes (`store::group`), so that lanes can move to servers of their own:
//! `tests/it/schema/groups.rs` holds this.

pub mod app;
pub mod blob;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod engine;
pub mod hex;
pub mod http;
pub mod listen;
pub mod outbound;
pub mod repeat;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod turnstile;
pub mod worker;
