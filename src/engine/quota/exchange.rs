//! The loop that exchanges demand between nodes. It writes the demand of this node's limited tenants to the database,
//! reads the demand of the other nodes, and sets this node's shares. It runs about four times a second for tenants with
//! demand, at once when demand begins, and not at all without demand. Reports expire after a while, so the share of a
//! node that has ended goes to the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::engine::error::Error;
use crate::engine::inbox::Inbox;
use crate::engine::quota::Quotas;
use crate::engine::quota::limited::Limited;
use crate::engine::quota::share::{OtherReports, Pace, RateReport, Shares, cautious, items, share};
use crate::store::quota_demand::{Demand, DemandOfRate};
use crate::store::{self, TenantId};

/// Pause between two exchanges of a tenant.
const PAUSE: Duration = Duration::from_millis(250);
/// Pause after the first exchanges: two nodes on which demand begins together do not see each other in the first one.
const FIRST: Duration = Duration::from_millis(50);
/// Pause after the next exchanges: demand that begins on one node has often just ended on another.
const NEXT: Duration = Duration::from_millis(125);
/// Tenants that wake within this time go into one statement.
const GATHER: Duration = Duration::from_millis(5);
/// Tenants that are due within this time are exchanged together with those that are due now.
const ALONG: Duration = Duration::from_millis(20);
/// Age from which reports of other nodes are ignored, and shares that were computed from them are given up.
const FRESH: Duration = Duration::from_millis(2_500);
/// Tenants exchanged in one statement.
const TENANTS: usize = 1_000;
/// Age from which rows of nodes that have ended are deleted.
const STALE: Duration = Duration::from_secs(60);

/// The pauses between the exchanges of a tenant.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pauses {
    exchanges: u32,
}

impl Pauses {
    /// The pause after the next exchange. It is short when demand seems to end, so that the other nodes learn of it
    /// soon.
    pub(super) fn next(&mut self, is_ending: bool) -> Duration {
        self.exchanges = self.exchanges.saturating_add(1);
        match self.exchanges {
            1 | 2 => FIRST,
            _ if is_ending => FIRST,
            3..=6 => NEXT,
            _ => PAUSE,
        }
    }
}

/// Tenants that are due for an exchange at once, because their demand has begun or their quota has changed. Bounded by
/// the tenants that this node knows.
pub(super) type Awakened = Inbox<Vec<Arc<Limited>>>;

fn take_all(awakened: &mut Vec<Arc<Limited>>) -> Option<Vec<Arc<Limited>>> {
    (!awakened.is_empty()).then(|| std::mem::take(awakened))
}

impl Limited {
    /// Whether its demand is reported to the other nodes.
    pub(super) fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Relaxed)
    }
}

impl Quotas {
    /// Records that there is demand. When there was none before, the tenant is due for an exchange at once.
    pub(super) fn wake(&self, limited: &Arc<Limited>) {
        if !limited.is_awake() && !limited.awake.swap(true, Ordering::Relaxed) {
            self.awakened.put(|tenants| tenants.push(limited.clone()));
        }
    }

    /// Makes a tenant with demand due for an exchange at once, after its limits have changed.
    pub(super) fn exchange_at_once(&self, limited: &Arc<Limited>) {
        if limited.is_awake() {
            self.awakened.put(|tenants| tenants.push(limited.clone()));
        }
    }
}

/// The exchanges of one tenant with demand.
struct Exchange {
    limited: Arc<Limited>,
    pauses: Pauses,
    due: Instant,
    /// When its demand was measured last.
    measured: Instant,
    /// When its shares were set last.
    divided: Instant,
}

impl Exchange {
    fn new(limited: Arc<Limited>, now: Instant, quotas: &Quotas) -> Self {
        let mut paces = limited.paces.lock();
        for (pace, rate) in paces.iter_mut().zip(limited.rates()) {
            pace.begin(rate.owed_before(quotas.now()));
        }
        drop(paces);
        Self {
            limited,
            pauses: Pauses::default(),
            due: now,
            measured: now,
            divided: now,
        }
    }

    /// Measures this node's demand, and sets when the next exchange is due.
    fn measure(&mut self, now: Instant, quotas: &Quotas) -> Demand {
        let span = now.duration_since(std::mem::replace(&mut self.measured, now));
        let limited = &self.limited;
        let mut paces = limited.paces.lock();
        let mut rates = [DemandOfRate::default(); 3];
        for ((pace, rate), report) in paces.iter_mut().zip(limited.rates()).zip(&mut rates) {
            let measured = pace.measure(rate.count(quotas.now()), span);
            *report = DemandOfRate {
                wanted: measured.wanted,
                taken: measured.taken.cast_signed(),
                guaranteed: measured.guaranteed.cast_signed(),
            };
        }
        let is_ending = paces.iter().any(Pace::is_ending);
        self.due = now + self.pauses.next(is_ending);
        Demand {
            tenant: limited.tenant,
            rates,
            concurrent_wanted: limited.concurrency.wanted(),
            speakers: 1,
        }
    }

    /// Sets this node's shares from its own demand and that of the other nodes.
    fn divide(&mut self, quotas: &Quotas, own: &Demand, others: &Demand) {
        let now = Instant::now();
        let span = now.duration_since(std::mem::replace(&mut self.divided, now));
        let nodes = quotas.nodes();
        let speakers = u32::try_from(others.speakers).unwrap_or(u32::MAX);
        let mut paces = self.limited.paces.lock();
        let all = self.limited.shares_of_all();
        let mut shares = all;
        for (at, pace) in paces.iter_mut().enumerate() {
            let reports = OtherReports {
                sum: report(&others.rates[at]),
                nodes: speakers,
            };
            shares[at] = pace.divide(all[at], reports, nodes, span);
            if quotas.is_newcomer() && speakers == 0 {
                // Other nodes may not know yet that they are not alone.
                shares[at] = at_most_even(shares[at], all[at], nodes);
            }
        }
        self.limited.set_shares(shares, quotas.now());
        let cap = self.limited.quota().concurrent_requests.map(items);
        let (wanted, of_others) = (own.concurrent_wanted, others.concurrent_wanted);
        let concurrent = cap.map(|cap| share(cap, wanted, of_others, f64::from(nodes)));
        self.limited.concurrency.set_share(concurrent);
    }

    /// Whether there was no demand for a while, and no request that counts against a cap is running.
    fn is_over(&self) -> bool {
        let quiet = self.limited.paces.lock().iter().all(Pace::is_quiet);
        let is_capped = self.limited.quota().concurrent_requests.is_some();
        quiet && !(is_capped && self.limited.concurrency.running() > 0)
    }
}

fn report(rate: &DemandOfRate) -> RateReport {
    RateReport {
        wanted: rate.wanted,
        taken: rate.taken.max(0).unsigned_abs(),
        guaranteed: rate.guaranteed.max(0).unsigned_abs(),
    }
}

fn at_most_even(shares: Shares, all: Shares, nodes: u32) -> Shares {
    let at_most = |share: Option<f64>, all: Option<f64>| {
        let (share, all) = share.zip(all)?;
        Some(share.min(cautious(all, f64::from(nodes))))
    };
    Shares {
        guaranteed: at_most(shares.guaranteed, all.guaranteed),
        ceiling: at_most(shares.ceiling, all.ceiling),
    }
}

impl Quotas {
    /// Exchanges demand with the other nodes until `stop`.
    pub async fn exchange_demand(&self, stop: CancellationToken) {
        let mut exchanges: Vec<Exchange> = Vec::new();
        let mut cleared = Instant::now();
        loop {
            let due = exchanges.iter().map(|exchange| exchange.due).min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                awakened = self.awakened.take(take_all) => {
                    // Tenants that wake together go into the same statement.
                    tokio::time::sleep(GATHER).await;
                    self.begin_exchanges(&mut exchanges, awakened);
                }
                () = until(due) => {}
            }
            let now = Instant::now();
            // Those that are due come first.
            exchanges.sort_unstable_by_key(|exchange| exchange.due);
            let due = exchanges.partition_point(|exchange| exchange.due <= now + ALONG);
            for some in exchanges[..due].chunks_mut(TENANTS) {
                let outcome = tokio::time::timeout(FRESH, self.exchange(some)).await;
                if !matches!(outcome, Ok(Ok(()))) {
                    tracing::debug!(?outcome, "demand could not be exchanged; it is tried again");
                    self.fall_back(some);
                }
            }
            exchanges.retain(|exchange| {
                let is_over = exchange.is_over();
                if is_over {
                    self.end_exchange(exchange);
                }
                !is_over
            });
            if cleared.elapsed() > STALE {
                cleared = Instant::now();
                self.clear_demand().await;
            }
        }
    }

    /// Adds the tenants whose demand has begun, and makes those due at once whose quota has changed.
    fn begin_exchanges(&self, exchanges: &mut Vec<Exchange>, mut awakened: Vec<Arc<Limited>>) {
        let now = Instant::now();
        awakened.extend(self.awakened.with(take_all).into_iter().flatten());
        let index: HashMap<TenantId, usize> = exchanges
            .iter()
            .enumerate()
            .map(|(at, exchange)| (exchange.limited.tenant, at))
            .collect();
        for limited in awakened {
            match index.get(&limited.tenant) {
                Some(at) => exchanges[*at].due = now,
                None => exchanges.push(Exchange::new(limited, now, self)),
            }
        }
    }

    /// Ends the exchanges of a tenant without demand. Its next requests get an even share until the next exchange.
    fn end_exchange(&self, exchange: &Exchange) {
        let limited = &exchange.limited;
        limited.awake.store(false, Ordering::Relaxed);
        limited.be_cautious(self.nodes(), self.now());
        limited
            .concurrency
            .set_share(limited.quota().concurrent_requests.map(items));
    }

    /// Exchanges the demand of some tenants. A node that is alone needs no statement.
    async fn exchange(&self, exchanges: &mut [Exchange]) -> Result<(), Error> {
        let now = Instant::now();
        let own: Vec<Demand> = exchanges
            .iter_mut()
            .map(|exchange| exchange.measure(now, self))
            .collect();
        let mut others: HashMap<TenantId, Demand> = HashMap::new();
        if self.nodes() > 1 {
            let mut session = self.store.session().await?;
            let demands =
                store::quota_demand::exchange(&mut session, self.node, &own, FRESH).await?;
            others.extend(demands.into_iter().map(|demand| (demand.tenant, demand)));
        }
        for (exchange, own) in exchanges.iter_mut().zip(&own) {
            let others = others.get(&own.tenant).copied().unwrap_or_default();
            exchange.divide(self, own, &others);
        }
        Ok(())
    }

    /// Replaces shares that were computed from reports that are too old by even shares.
    fn fall_back(&self, exchanges: &mut [Exchange]) {
        for exchange in exchanges
            .iter()
            .filter(|exchange| exchange.divided.elapsed() >= FRESH)
        {
            exchange.limited.be_cautious(self.nodes(), self.now());
        }
    }

    async fn clear_demand(&self) {
        let cleared = async {
            let mut session = self.store.session().await?;
            store::quota_demand::delete_older(&mut session, STALE).await
        };
        if let Err(error) = cleared.await {
            tracing::debug!(%error, "old demand could not be deleted");
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
