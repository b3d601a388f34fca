//! The loop in which a node tells the others what its limited tenants ask for, hears what is asked of them, and sets its
//! shares: about four times a second for tenants with demand, at once when demand begins, never without any. What the
//! others said counts for a while only, so the share of a node that dies goes to those that live.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::engine::error::Error;
use crate::engine::inbox::Inbox;
use crate::store;
use crate::store::quota_demand::{Demand, DemandOfRate};
use crate::engine::quota::Quotas;
use crate::engine::quota::limited::Limited;
use crate::engine::quota::share::{Heard, Pace, Shares, Told, cautious, items, share};

/// Pause between two exchanges of a tenant.
const TICK: Duration = Duration::from_millis(250);
/// Pause after the first ones: two nodes on which demand begins at once do not see each other in the first.
const FIRST: Duration = Duration::from_millis(50);
/// Pause after the next ones: where demand begins it often ends somewhere else.
const NEXT: Duration = Duration::from_millis(125);
/// What wakes within this time goes into one statement.
const GATHER: Duration = Duration::from_millis(5);
/// What is due within this time goes along.
const ALONG: Duration = Duration::from_millis(20);
/// What another node said so long ago counts no more; nor do shares that were worked out from it.
const FRESH: Duration = Duration::from_millis(2_500);
/// Tenants told of in one statement.
const TENANTS: usize = 1_000;
/// Rows of nodes that are gone are cleared away after this.
const STALE: Duration = Duration::from_secs(60);

/// How often a tenant is told of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rhythm {
    told: u32,
}

impl Rhythm {
    /// The pause after an exchange; short when demand seems to end, so that the others soon know.
    pub(super) fn pause(&mut self, is_ending: bool) -> Duration {
        self.told = self.told.saturating_add(1);
        match self.told {
            1 | 2 => FIRST,
            _ if is_ending => FIRST,
            3..=6 => NEXT,
            _ => TICK,
        }
    }
}

/// Tenants whose demand has begun. Bounded by the tenants that the node knows: each is in it once, or is asked for at once.
pub(super) type Awakened = Inbox<Vec<Arc<Limited>>>;

fn take_all(awakened: &mut Vec<Arc<Limited>>) -> Option<Vec<Arc<Limited>>> {
    (!awakened.is_empty()).then(|| std::mem::take(awakened))
}

impl Limited {
    /// Whether its demand is told to the others.
    pub(super) fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Relaxed)
    }
}

impl Quotas {
    /// There is demand: the others are told at once when there was none before.
    pub(super) fn wake(&self, limited: &Arc<Limited>) {
        if !limited.is_awake() && !limited.awake.swap(true, Ordering::Relaxed) {
            self.awakened.put(|tenants| tenants.push(limited.clone()));
        }
    }

    /// The limits changed: a tenant with demand is told of at once.
    pub(super) fn ask_at_once(&self, limited: &Arc<Limited>) {
        if limited.is_awake() {
            self.awakened.put(|tenants| tenants.push(limited.clone()));
        }
    }
}

/// A tenant with demand.
struct Talk {
    limited: Arc<Limited>,
    rhythm: Rhythm,
    due: Instant,
    /// When what it counts was taken last.
    measured: Instant,
    /// When its shares were set last.
    heard: Instant,
}

impl Talk {
    fn new(limited: Arc<Limited>, now: Instant, quotas: &Quotas) -> Self {
        let mut paces = limited.paces.lock();
        for (pace, rate) in paces.iter_mut().zip(limited.rates()) {
            pace.begin(rate.owed_before(quotas.now()));
        }
        drop(paces);
        Self {
            limited,
            rhythm: Rhythm::default(),
            due: now,
            measured: now,
            heard: now,
        }
    }

    /// What is said of it now.
    fn tell(&mut self, now: Instant, quotas: &Quotas) -> Demand {
        let span = now.duration_since(std::mem::replace(&mut self.measured, now));
        let limited = &self.limited;
        let mut paces = limited.paces.lock();
        let mut rates = [DemandOfRate::default(); 3];
        for ((pace, rate), told) in paces.iter_mut().zip(limited.rates()).zip(&mut rates) {
            let now = pace.measure(rate.count(quotas.now()), span);
            *told = DemandOfRate {
                wanted: now.wanted,
                taken: now.taken.cast_signed(),
                guaranteed: now.guaranteed.cast_signed(),
            };
        }
        let is_ending = paces.iter().any(Pace::is_ending);
        self.due = now + self.rhythm.pause(is_ending);
        Demand {
            tenant: limited.tenant,
            rates,
            concurrent_wanted: limited.places.wanted(),
            speakers: 1,
        }
    }

    /// Sets the shares by what the others said.
    fn hear(&mut self, quotas: &Quotas, own: &Demand, others: &Demand) {
        let now = Instant::now();
        let span = now.duration_since(std::mem::replace(&mut self.heard, now));
        let nodes = quotas.nodes();
        let speakers = u32::try_from(others.speakers).unwrap_or(u32::MAX);
        let mut paces = self.limited.paces.lock();
        let all = self.limited.shares_of_all();
        let mut shares = all;
        for (at, pace) in paces.iter_mut().enumerate() {
            let told = told(&others.rates[at]);
            shares[at] = pace.hear(all[at], Heard { told, speakers }, nodes, span);
            if quotas.is_newcomer() && speakers == 0 {
                // The others may not have noticed that they are not alone.
                shares[at] = at_most_even(shares[at], all[at], nodes);
            }
        }
        self.limited.set_shares(shares, quotas.now());
        let cap = self.limited.quota().concurrent_requests.map(items);
        let (wanted, of_others) = (own.concurrent_wanted, others.concurrent_wanted);
        let places = cap.map(|cap| share(cap, wanted, of_others, f64::from(nodes)));
        self.limited.places.set(places);
    }

    /// Whether there was no demand for a while, nor is anything under way.
    fn is_over(&self) -> bool {
        let quiet = self.limited.paces.lock().iter().all(Pace::is_quiet);
        let is_capped = self.limited.quota().concurrent_requests.is_some();
        quiet && !(is_capped && self.limited.places.taken() > 0)
    }
}

fn told(rate: &DemandOfRate) -> Told {
    Told {
        wanted: rate.wanted,
        taken: rate.taken.max(0).unsigned_abs(),
        guaranteed: rate.guaranteed.max(0).unsigned_abs(),
    }
}

fn at_most_even(shares: Shares, all: Shares, nodes: u32) -> Shares {
    let least = |share: Option<f64>, all: Option<f64>| {
        let (share, all) = share.zip(all)?;
        Some(share.min(cautious(all, f64::from(nodes))))
    };
    Shares {
        guaranteed: least(shares.guaranteed, all.guaranteed),
        ceiling: least(shares.ceiling, all.ceiling),
    }
}

impl Quotas {
    /// Talks with the other nodes until `stop`.
    pub async fn exchange_demand(&self, stop: CancellationToken) {
        let mut talks: Vec<Talk> = Vec::new();
        let mut cleared = Instant::now();
        loop {
            let due = talks.iter().map(|talk| talk.due).min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                awakened = self.awakened.take(take_all) => {
                    // Others that wake together go into the same exchange.
                    tokio::time::sleep(GATHER).await;
                    self.begin_talks(&mut talks, awakened);
                }
                () = until(due) => {}
            }
            let now = Instant::now();
            // Those that are due come first.
            talks.sort_unstable_by_key(|talk| talk.due);
            let due = talks.partition_point(|talk| talk.due <= now + ALONG);
            for some in talks[..due].chunks_mut(TENANTS) {
                let talked = tokio::time::timeout(FRESH, self.talk(some)).await;
                if !matches!(talked, Ok(Ok(()))) {
                    tracing::debug!(?talked, "demand could not be told; it is told again");
                    self.doubt(some);
                }
            }
            talks.retain(|talk| {
                let is_over = talk.is_over();
                if is_over {
                    self.end_talk(talk);
                }
                !is_over
            });
            if cleared.elapsed() > STALE {
                cleared = Instant::now();
                self.clear_demand().await;
            }
        }
    }

    /// Takes in the tenants whose demand has begun, and those that are to be asked at once.
    fn begin_talks(&self, talks: &mut Vec<Talk>, mut awakened: Vec<Arc<Limited>>) {
        let now = Instant::now();
        awakened.extend(self.awakened.with(take_all).into_iter().flatten());
        let at = talks.iter().enumerate();
        let at: HashMap<i64, usize> = at.map(|(at, talk)| (talk.limited.tenant, at)).collect();
        for limited in awakened {
            match at.get(&limited.tenant) {
                Some(at) => talks[*at].due = now,
                None => talks.push(Talk::new(limited, now, self)),
            }
        }
    }

    /// There is no demand any more. Until it is asked again what the others want, a part of the quota must do.
    fn end_talk(&self, talk: &Talk) {
        let limited = &talk.limited;
        limited.awake.store(false, Ordering::Relaxed);
        limited.be_cautious(self.nodes(), self.now());
        limited
            .places
            .set(limited.quota().concurrent_requests.map(items));
    }

    /// One exchange of some tenants. A node that is alone needs nobody's word.
    async fn talk(&self, talks: &mut [Talk]) -> Result<(), Error> {
        let now = Instant::now();
        let own: Vec<Demand> = talks.iter_mut().map(|talk| talk.tell(now, self)).collect();
        let mut others: HashMap<i64, Demand> = HashMap::new();
        if self.nodes() > 1 {
            let mut session = self.store.session().await?;
            let said = store::quota_demand::exchange(&mut session, self.node, &own, FRESH);
            let said = said.await?.into_iter();
            others.extend(said.map(|demand| (demand.tenant, demand)));
        }
        for (talk, own) in talks.iter_mut().zip(&own) {
            let others = others.get(&own.tenant).copied().unwrap_or_default();
            talk.hear(self, own, &others);
        }
        Ok(())
    }

    /// Shares that rest on what was said too long ago are given up for even ones.
    fn doubt(&self, talks: &mut [Talk]) {
        for talk in talks.iter().filter(|talk| talk.heard.elapsed() >= FRESH) {
            talk.limited.be_cautious(self.nodes(), self.now());
        }
    }

    async fn clear_demand(&self) {
        let cleared = async {
            let mut session = self.store.session().await?;
            store::quota_demand::delete_older(&mut session, STALE).await
        };
        if let Err(error) = cleared.await {
            tracing::debug!(%error, "old demand could not be cleared away");
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
