//! Tables `dedup_0` to `dedup_5`: keys of publishes that must not happen twice. The turn looks keys up and inserts them
//! (`turn.sql`); rows are never updated or deleted one by one. The tables are two rings of three, by the length of the
//! window. The statements here truncate a table when the windows of all its keys are over.

use time::OffsetDateTime;
use uuid::Uuid;

use super::error::is_code;
use super::{Era, Error, Offset, Session};

/// Number of tables: two rings of three.
pub const TABLES: i16 = 6;
/// Longest window of the first ring, and the time for which each of its tables takes new keys, in seconds.
pub const SHORT_SECONDS: i32 = 600;
/// The same of the second ring.
pub const LONG_SECONDS: i32 = 86_400;

/// A key that a turn looks up, and inserts if it is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Hash of lane, scope and key.
    pub key: Uuid,
    /// Index in the request of the message that it stands for.
    pub index: u32,
    /// Length of its window in seconds.
    pub window_seconds: i32,
    /// Hash of the request; `None` if none is compared.
    pub fingerprint: Option<Uuid>,
    /// Results of the request, if they are not just its messages in order.
    pub results: Option<Vec<u8>>,
}

impl NewKey {
    /// What is stored as its results: in a later era than the first, the results end with the era of the messages.
    pub(super) fn stored_results(&self, era: Era) -> Option<Vec<u8>> {
        if era == Era::FIRST {
            return self.results.clone();
        }
        let mut results = self.results.clone().unwrap_or_default();
        results.extend(era.get().to_be_bytes());
        Some(results)
    }
}

/// A key that was used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Hash of lane, scope and key.
    pub key: Uuid,
    /// The era in which it was used.
    pub era: Era,
    /// Offset of its message; of a request, of its first new message.
    pub first_offset: Offset,
    /// Hash of the request; `None` if none is compared.
    pub fingerprint: Option<Uuid>,
    /// Results of the request, if they are not just its messages in order.
    pub results: Option<Vec<u8>>,
}

/// Takes stored results apart: the era, and the results of the request, which are pairs of numbers of 8 bytes.
pub(super) fn era_and_results(stored: Option<Vec<u8>>) -> (Era, Option<Vec<u8>>) {
    let Some(mut results) = stored else {
        return (Era::FIRST, None);
    };
    match results.len() % 8 {
        2 => {
            let era = results.split_off(results.len() - 2);
            let era = Era::new(u16::from_be_bytes([era[0], era[1]]));
            (era, (!results.is_empty()).then_some(results))
        }
        _ => (Era::FIRST, Some(results)),
    }
}

/// The tables with keys whose windows are all over. A table is reported only in the middle of the time in which its ring
/// leaves it alone: a turn may be slow to commit, and after a failover the database's time may be some seconds behind.
///
/// # Errors
/// When the database call fails.
pub async fn over(session: &mut Session, now: Option<OffsetDateTime>) -> Result<Vec<i16>, Error> {
    Ok(sqlx::query_scalar(
        "-- dedup.over
         SELECT t.number FROM (SELECT extract(epoch FROM coalesce($1, now()))::float8 AS at) n
         CROSS JOIN (VALUES (0, $2::integer), (3, $3)) AS r (first, seconds)
         CROSS JOIN LATERAL (SELECT (r.first + (floor(n.at / r.seconds)::bigint + 1) % 3)::smallint AS number) t
         WHERE n.at / r.seconds - floor(n.at / r.seconds) BETWEEN 0.1 AND 0.9
           AND pg_relation_size(format('dedup_%s', t.number)::regclass) > 0",
    )
    .bind(now)
    .bind(SHORT_SECONDS)
    .bind(LONG_SECONDS)
    .fetch_all(session.run("dedup.over"))
    .await?)
}

const TRUNCATE: [&str; TABLES as usize] = [
    "-- dedup.truncate\nTRUNCATE TABLE dedup_0",
    "-- dedup.truncate\nTRUNCATE TABLE dedup_1",
    "-- dedup.truncate\nTRUNCATE TABLE dedup_2",
    "-- dedup.truncate\nTRUNCATE TABLE dedup_3",
    "-- dedup.truncate\nTRUNCATE TABLE dedup_4",
    "-- dedup.truncate\nTRUNCATE TABLE dedup_5",
];

/// Truncates a table that [`over`] has reported. `false`: another transaction holds it; this transaction is aborted
/// then, and the caller tries again later.
///
/// # Errors
/// When the database call fails.
pub async fn truncate(session: &mut Session, table: i16) -> Result<bool, Error> {
    let statement = usize::try_from(table).ok().and_then(|at| TRUNCATE.get(at));
    let statement = *statement.ok_or_else(|| Error::Corrupt {
        table: "dedup",
        column: "number",
        row: table.to_string(),
    })?;
    // No turn waits for this lock, because none reads the table now. A backup may hold it for hours.
    sqlx::query("-- dedup.patience\nSELECT set_config('lock_timeout', '50ms', true)")
        .execute(session.run("dedup.patience"))
        .await?;
    let truncated = sqlx::query(statement)
        .execute(session.run("dedup.truncate"))
        .await;
    match truncated {
        Ok(_) => Ok(true),
        // 55P03: lock_not_available
        Err(error) if is_code(&error, "55P03") => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_era_of_a_key_reads_back_and_the_first_costs_nothing() {
        for results in [None, Some(vec![7; 16])] {
            let key = NewKey {
                key: Uuid::nil(),
                index: 0,
                window_seconds: 1,
                fingerprint: None,
                results: results.clone(),
            };
            assert_eq!(key.stored_results(Era::FIRST), results);
            for era in [0, 1, u16::MAX].map(Era::new) {
                let stored = key.stored_results(era);
                assert_eq!(era_and_results(stored), (era, results.clone()));
            }
        }
    }
}
