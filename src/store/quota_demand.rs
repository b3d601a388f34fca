//! Table `quota_demand`: the demand of tenants with a quota on each node. Each node writes its own rows and reads the
//! sums of the other nodes', in one statement a few times a second. The times are the database's (I10). They never come
//! from the test clock, because they pace rates that nodes measure in real seconds.

use std::time::Duration;

use uuid::Uuid;

use super::{Error, Session, TenantId};

/// The demand on one rate of a tenant, as reported by a node.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DemandOfRate {
    /// Items per second that arrived.
    pub wanted: f64,
    /// Items admitted since the demand began on this node.
    pub taken: i64,
    /// Of these, items inside the guarantee.
    pub guaranteed: i64,
}

/// The demand of a tenant, as reported by a node or summed up over the other nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    /// The tenant.
    pub tenant: TenantId,
    /// The rates: requests, messages and bytes.
    pub rates: [DemandOfRate; 3],
    /// Requests that run, and requests that were refused because too many ran.
    pub concurrent_wanted: f64,
    /// The number of reporting nodes.
    pub speakers: i64,
}

#[derive(sqlx::FromRow)]
struct Sums {
    tenant_id: TenantId,
    wanted: Vec<f64>,
    taken: Vec<i64>,
    guaranteed: Vec<i64>,
    concurrent_wanted: f64,
    speakers: i64,
}

/// Writes the demand that `node` has measured, and returns what the other nodes reported for the same tenants within
/// the last `fresh`.
///
/// # Errors
/// When the database call fails.
pub async fn exchange(
    session: &mut Session,
    node: Uuid,
    own: &[Demand],
    fresh: Duration,
) -> Result<Vec<Demand>, Error> {
    let tenants: Vec<TenantId> = own.iter().map(|demand| demand.tenant).collect();
    let [requests, messages, bytes] = [0, 1, 2].map(|at| Columns::of(own, at));
    let concurrent: Vec<f64> = own.iter().map(|demand| demand.concurrent_wanted).collect();
    let sums: Vec<Sums> = sqlx::query_as(
        "-- quota_demand.exchange
         WITH own AS (
             INSERT INTO quota_demand AS d
             SELECT u.tenant_id, $1, now(), u.rw, u.rt, u.rg, u.mw, u.mt, u.mg, u.bw, u.bt, u.bg, u.cw
             FROM unnest($2::bigint[], $3::float8[], $4::bigint[], $5::bigint[], $6::float8[], $7::bigint[], $8::bigint[],
                         $9::float8[], $10::bigint[], $11::bigint[], $12::float8[])
                  AS u (tenant_id, rw, rt, rg, mw, mt, mg, bw, bt, bg, cw)
             -- in a fixed order, though no two nodes write the same row
             ORDER BY u.tenant_id
             ON CONFLICT (tenant_id, node_id) DO UPDATE SET at = excluded.at,
                 requests_wanted = excluded.requests_wanted, requests_taken = excluded.requests_taken,
                 requests_guaranteed = excluded.requests_guaranteed,
                 messages_wanted = excluded.messages_wanted, messages_taken = excluded.messages_taken,
                 messages_guaranteed = excluded.messages_guaranteed,
                 bytes_wanted = excluded.bytes_wanted, bytes_taken = excluded.bytes_taken,
                 bytes_guaranteed = excluded.bytes_guaranteed, concurrent_wanted = excluded.concurrent_wanted
         )
         SELECT o.tenant_id,
                ARRAY[sum(o.requests_wanted), sum(o.messages_wanted), sum(o.bytes_wanted)] AS wanted,
                ARRAY[sum(o.requests_taken), sum(o.messages_taken), sum(o.bytes_taken)]::bigint[] AS taken,
                ARRAY[sum(o.requests_guaranteed), sum(o.messages_guaranteed), sum(o.bytes_guaranteed)]::bigint[] AS guaranteed,
                sum(o.concurrent_wanted) AS concurrent_wanted, count(*) AS speakers
         FROM quota_demand o
         WHERE o.tenant_id = ANY ($2) AND o.node_id <> $1 AND o.at > now() - $13 * interval '1 second'
         GROUP BY o.tenant_id",
    )
    .bind(node)
    .bind(tenants)
    .bind(requests.wanted)
    .bind(requests.taken)
    .bind(requests.guaranteed)
    .bind(messages.wanted)
    .bind(messages.taken)
    .bind(messages.guaranteed)
    .bind(bytes.wanted)
    .bind(bytes.taken)
    .bind(bytes.guaranteed)
    .bind(concurrent)
    .bind(fresh.as_secs_f64())
    .fetch_all(session.run("quota_demand.exchange"))
    .await?;
    Ok(sums.iter().map(demand).collect())
}

/// One rate of many tenants, as arrays of the statement.
struct Columns {
    wanted: Vec<f64>,
    taken: Vec<i64>,
    guaranteed: Vec<i64>,
}

impl Columns {
    fn of(own: &[Demand], at: usize) -> Self {
        let rates = || own.iter().map(|demand| demand.rates[at]);
        Self {
            wanted: rates().map(|rate| rate.wanted).collect(),
            taken: rates().map(|rate| rate.taken).collect(),
            guaranteed: rates().map(|rate| rate.guaranteed).collect(),
        }
    }
}

fn demand(sums: &Sums) -> Demand {
    let rate = |at: usize| DemandOfRate {
        wanted: sums.wanted.get(at).copied().unwrap_or_default(),
        taken: sums.taken.get(at).copied().unwrap_or_default(),
        guaranteed: sums.guaranteed.get(at).copied().unwrap_or_default(),
    };
    Demand {
        tenant: sums.tenant_id,
        rates: [0, 1, 2].map(rate),
        concurrent_wanted: sums.concurrent_wanted,
        speakers: sums.speakers,
    }
}

/// Deletes rows that no node has updated for a while.
///
/// # Errors
/// When the database call fails.
pub async fn delete_older(session: &mut Session, than: Duration) -> Result<u64, Error> {
    let deleted = sqlx::query(
        "-- quota_demand.delete_older
         DELETE FROM quota_demand WHERE at < now() - $1 * interval '1 second'",
    )
    .bind(than.as_secs_f64())
    .execute(session.run("quota_demand.delete_older"))
    .await?;
    Ok(deleted.rows_affected())
}
