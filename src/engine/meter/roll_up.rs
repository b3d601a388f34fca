//! Duty `roll_up`: makes old usage coarser. Rows of minutes become rows of hours, hours become days, and old days are
//! deleted. One statement moves a row, so each row is counted in exactly one place at any moment, and a run that is cut
//! short loses nothing (I8). A query by windows that are still kept returns the same before and after.

use api::limits::{USAGE_DAYS_DAYS, USAGE_HOURS_DAYS, USAGE_MINUTES_DAYS};
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::store::usage;

/// Rows moved in one transaction.
const ROWS: i64 = 5_000;
/// Numbers of flushes are kept for this many days. A node that has not flushed for that time has ended, so it repeats
/// none.
const FLUSHES_DAYS: i64 = 31;

/// Start of the first minute that is still kept as a minute.
pub(in crate::engine) fn first_minute(at: OffsetDateTime) -> OffsetDateTime {
    start_of_hour(at) - Duration::days(i64::from(USAGE_MINUTES_DAYS))
}

/// Start of the first hour that is still kept as an hour.
pub(in crate::engine) fn first_hour(at: OffsetDateTime) -> OffsetDateTime {
    start_of_day(at) - Duration::days(i64::from(USAGE_HOURS_DAYS))
}

/// Start of the first day that is kept.
pub(in crate::engine) fn first_day(at: OffsetDateTime) -> OffsetDateTime {
    start_of_day(at) - Duration::days(i64::from(USAGE_DAYS_DAYS))
}

fn start_of_hour(at: OffsetDateTime) -> OffsetDateTime {
    at - Duration::nanoseconds_i128(at.unix_timestamp_nanos().rem_euclid(3_600_000_000_000))
}

fn start_of_day(at: OffsetDateTime) -> OffsetDateTime {
    at - Duration::nanoseconds_i128(at.unix_timestamp_nanos().rem_euclid(86_400_000_000_000))
}

/// The duty.
#[derive(Debug)]
pub struct RollUp;

impl Duty for RollUp {
    const NAME: &'static str = "roll_up";
    const BUSY: std::time::Duration = std::time::Duration::from_secs(60);
    const IDLE: std::time::Duration = std::time::Duration::from_secs(60);
    // All minutes of an hour become due at the same time, and moving them is not urgent.
    const PAUSE_FACTOR: u32 = 9;

    /// Moves and deletes all rows that are due, and returns how many. Stops between two transactions.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let mut done = Done::default();
        let mut session = context.store.session().await?;
        let at = usage::status(&mut session, context.clock.now()).await?.at;
        let mut more = true;
        while more && !stop.is_cancelled() {
            let minutes = usage::roll_minutes(&mut session, first_minute(at), ROWS).await?;
            let hours = usage::roll_hours(&mut session, first_hour(at), ROWS).await?;
            let days = usage::delete_days(&mut session, first_day(at), ROWS).await?;
            let rows = [minutes.unsigned_abs(), hours.unsigned_abs(), days];
            done.count += rows.iter().sum::<u64>();
            more = rows.contains(&ROWS.unsigned_abs());
        }
        usage::delete_flushes(&mut session, at - Duration::days(FLUSHES_DAYS)).await?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn kept_usage_begins_with_a_whole_window_of_the_coarser_kind() {
        let at = datetime!(2030-01-10 12:34:56.789 UTC);
        assert_eq!(first_minute(at), datetime!(2030-01-02 12:00 UTC));
        assert_eq!(first_hour(at), datetime!(2028-12-06 00:00 UTC));
        assert_eq!(first_day(at), datetime!(2020-01-03 00:00 UTC));
    }
}
