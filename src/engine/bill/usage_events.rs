//! Turns usage into events, for each sink window by window. A window is used as soon as it can no longer change
//! (`meter::blocks::is_final`). Its events and the new position of the sink commit together, so a window becomes events
//! once, even if two nodes work on it (I8). A sink with too many waiting events gets no new ones. Its usage is kept,
//! and turned into events of longer windows if the delay gets too long.

use std::time::Instant;

use api::Timestamp;
use api::event::{EventGranularity, EventKind, UsageEvent};
use api::limits::EVENTS_WAITING_MAX;
use api::usage::UsageItem;
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use crate::engine::bill::plans;
use crate::engine::bill::usage;
use crate::engine::bill::usage_after::UsageAfter;
use crate::engine::bill::window::{self, Metering, Window};
use crate::engine::duty::{Context, Done, DutyError};
use crate::engine::error::Error;
use crate::engine::events::Event;
use crate::store::event_outbox::{Frame, NewEvent};
use crate::store::event_sink::{self, Cursor};
use crate::store::usage_read::{UsageSelection, UseRange};
use crate::store::{self, Session, Store, TenantId, event_outbox, usage_read};

/// Sinks read in one run.
const SINKS: i64 = 10_000;
/// Events per transaction; the last tenant of a transaction may exceed it.
const EVENTS: usize = 1_000;
/// Tenants per transaction.
const TENANTS: i64 = 50;
/// Transactions for one sink before the next sink is processed.
const STEPS: u32 = 20;
/// Time for all sinks together in one run, because deliveries start after it.
const TIME: std::time::Duration = std::time::Duration::from_millis(500);

/// Turns usage into events for all sinks that are behind; counts events. Called by the duty `events`. Returns after a
/// while, or between two steps when `stop` is cancelled, and reports whether more is to do.
///
/// # Errors
/// When the database call fails.
pub async fn fill(context: &Context, stop: &CancellationToken) -> Result<Done, DutyError> {
    let Context { store, clock } = context;
    let began = Instant::now();
    let mut done = Done::default();
    let mut session = store.session().await?;
    let status = store::usage::status(&mut session, clock.now()).await?;
    let Some(metered_until) = status.metered_until else {
        return Ok(done);
    };
    let metering = Metering {
        at: status.at,
        until: metered_until,
    };
    // A minute is the shortest window.
    let latest = metered_until - Duration::MINUTE;
    let mut behind = event_sink::behind(&mut session, latest, SINKS).await?;
    drop(session);
    behind.retain(|cursor| is_due(cursor, metering));
    // The order starts at a random sink, so that a slow one does not use up the time of every run.
    let first = rand::random_range(0..behind.len().max(1));
    behind.rotate_left(first);
    let is_over = || began.elapsed() > TIME || stop.is_cancelled();
    let mut failed = None;
    for cursor in &behind {
        // An error of one sink does not stop the others.
        match run_steps(store, cursor.sink_id, metering, is_over).await {
            Ok((made, more)) => {
                done.count += made;
                done.more |= more;
            }
            Err(error) => failed = Some(error),
        }
        if is_over() {
            break;
        }
    }
    failed.map_or(Ok(done), Err)
}

/// Runs some steps of one sink. Returns the number of events, and whether more may be to do.
async fn run_steps(
    store: &Store,
    sink: i64,
    metering: Metering,
    is_over: impl Fn() -> bool,
) -> Result<(u64, bool), DutyError> {
    let mut count = 0;
    for _ in 0..STEPS {
        let Some(made) = step(store, sink, metering).await? else {
            return Ok((count, false));
        };
        count += made;
        if is_over() {
            break;
        }
    }
    Ok((count, true))
}

fn is_due(cursor: &Cursor, metering: Metering) -> bool {
    window(cursor, metering.at).is_final(metering.until)
}

fn window(cursor: &Cursor, at: OffsetDateTime) -> Window {
    let begun = cursor
        .begun_seconds
        .map(|seconds| Duration::seconds(seconds.into()));
    Window::next(cursor.next_window, begun, granularity(cursor), at)
}

fn granularity(cursor: &Cursor) -> EventGranularity {
    match &*cursor.granularity {
        "minute" => EventGranularity::Minute,
        _ => EventGranularity::Hour,
    }
}

/// One transaction of a sink. Returns the number of its events; `None`: nothing is to do now.
async fn step(store: &Store, sink: i64, metering: Metering) -> Result<Option<u64>, DutyError> {
    let mut tx = store.tx("fill_events").await?;
    let Some(mut cursor) = event_sink::lock_cursor(&mut tx, sink).await? else {
        return Ok(None);
    };
    let waiting_max = i64::from(EVENTS_WAITING_MAX);
    if event_outbox::waiting(&mut tx, sink, waiting_max).await? >= waiting_max {
        return Ok(None);
    }
    let before = cursor.clone();
    if cursor.begun_seconds.is_none() {
        let of = (!cursor.all_tenants).then_some(cursor.tenant_id);
        let first = usage_read::first(&mut tx, of, cursor.next_window).await?;
        let granularity = granularity(&cursor);
        cursor.next_window = window::skip(cursor.next_window, granularity, metering, first);
    }
    let window = window(&cursor, metering.at);
    let events = if window.is_final(metering.until) {
        events_of(&mut tx, &mut cursor, window).await?
    } else {
        Vec::new()
    };
    if cursor == before {
        return Ok(None);
    }
    event_outbox::fill(&mut tx, sink, &events).await?;
    event_sink::move_cursor(&mut tx, &cursor).await?;
    tx.commit().await?;
    Ok(Some(events.len() as u64))
}

/// Events of a window from the cursor on. Moves the cursor behind them, or to the next window if there are no more.
async fn events_of(
    tx: &mut Session,
    cursor: &mut Cursor,
    window: Window,
) -> Result<Vec<NewEvent>, DutyError> {
    let tenants = if cursor.all_tenants {
        next_tenants(tx, cursor, window).await?
    } else {
        vec![cursor.tenant_id]
    };
    let may_have_more = cursor.all_tenants && i64::try_from(tenants.len()) == Ok(TENANTS);
    let mut events = Vec::new();
    for tenant in tenants {
        let room = EVENTS.saturating_sub(events.len()).max(1);
        let items = items(tx, tenant, window, &cursor.after_key, room + 1).await?;
        let frame = event_outbox::frame(tx, tenant).await?;
        let last = items.get(room - 1).filter(|_| items.len() > room);
        let cut = last.map(|last| UsageAfter::of(last).to_string());
        for item in items.into_iter().take(room) {
            events.push(usage_event(&frame, item, window)?);
        }
        if let Some(cut) = cut {
            cursor.after_key = cut;
            return Ok(stay_in_window(cursor, window, events));
        }
        (cursor.after_tenant, cursor.after_key) = (tenant, String::new());
        if events.len() >= EVENTS && cursor.all_tenants {
            return Ok(stay_in_window(cursor, window, events));
        }
    }
    if may_have_more {
        return Ok(stay_in_window(cursor, window, events));
    }
    (cursor.next_window, cursor.begun_seconds) = (window.end(), None);
    (cursor.after_tenant, cursor.after_key) = (TenantId::UNASSIGNED, String::new());
    Ok(events)
}

/// Returns the events and keeps the cursor inside the window.
fn stay_in_window(cursor: &mut Cursor, window: Window, events: Vec<NewEvent>) -> Vec<NewEvent> {
    cursor.begun_seconds = i32::try_from(window.seconds()).ok();
    events
}

/// The next tenants after the cursor that have usage in the window.
async fn next_tenants(
    tx: &mut Session,
    cursor: &Cursor,
    window: Window,
) -> Result<Vec<TenantId>, DutyError> {
    let hours_from = match window.hour_of_storage() {
        Some(hour) => hour.start,
        None if window.is_minute() => window.end(),
        None => window.start,
    };
    let range = UseRange {
        from: window.start,
        to: window.end(),
        hours_from,
    };
    Ok(usage_read::tenants(tx, range, cursor.after_tenant, TENANTS).await?)
}

/// Usage of a tenant in a window after a position, by meter, topic and subscription. Amounts over time are not kept by
/// the minute: those of an hour follow the usage of its last minute.
async fn items(
    tx: &mut Session,
    tenant: TenantId,
    window: Window,
    after_key: &str,
    limit: usize,
) -> Result<Vec<UsageItem>, DutyError> {
    let last: Option<UsageAfter> = after_key.parse().ok();
    let after = last.as_ref().map(UsageAfter::position);
    let prices = plans::of_tenant(tx, tenant).await?;
    let topics = ["%".to_owned()];
    let selection = |window: Window, after, limit: usize| UsageSelection {
        tenant,
        topics: &topics,
        since: prices.totals_since(window.start),
        from: window.start,
        to: window.end(),
        granularity: window.granularity(),
        names: 2,
        over_time_only: false,
        after,
        limit: i64::try_from(limit).unwrap_or(i64::MAX),
    };
    let mut rows = Vec::new();
    // A position before the minute is in the list of its hour.
    let in_hour = after.filter(|(start, ..)| *start < window.start);
    if in_hour.is_none() {
        let after = after.unwrap_or((window.start, "", "", ""));
        rows = usage_read::list(tx, &selection(window, after, limit)).await?;
    }
    if let Some(hour) = window.hour_of_storage()
        && rows.len() < limit
    {
        let after = in_hour.unwrap_or((hour.start, "", "", ""));
        let of_hour = UsageSelection {
            over_time_only: true,
            ..selection(hour, after, limit - rows.len())
        };
        rows.extend(usage_read::list(tx, &of_hour).await?);
    }
    let items = rows.iter().map(|row| usage::item(row, &prices));
    Ok(items.collect::<Result<_, Error>>()?)
}

/// The event of an item. `end` is the end of the window. An amount over time that is reported with the last minute of
/// an hour covers that hour.
fn usage_event(frame: &Frame, item: UsageItem, window: Window) -> Result<NewEvent, DutyError> {
    let end = Timestamp::from(window.end());
    let (start, meter) = (item.start.to_string(), item.meter.as_str());
    let (topic, subscription) = (item.topic.clone(), item.subscription.clone());
    let tenant = frame.tenant.clone();
    let data = UsageEvent { tenant, end, item };
    let event = Event {
        kind: EventKind::Usage,
        identity: &[
            meter,
            topic.as_deref().unwrap_or(""),
            subscription.as_deref().unwrap_or(""),
            &start,
            &end.to_string(),
        ],
        at: window.end(),
        data: serde_json::to_value(data).map_err(|_| Error::Internal)?,
    };
    Ok(crate::engine::events::framed(frame, &event))
}
