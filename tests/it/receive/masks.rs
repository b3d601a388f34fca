//! Changes of leases and claims by the turn, in random orders, through the real statement. A model has the expected
//! state of each message. After every turn it is compared with the turn's results and with the rows (I2: each message
//! in one place; I3: only the current lease changes a message).

use std::collections::{BTreeMap, BTreeSet};

use cursus::store::lease::Lease;
use cursus::store::turn::{
    ASIDE_SECONDS, Claim, LeaseAction, LeaseChange, Scan, TurnInput, TurnOutput, run,
};
use cursus::store::{LaneId, LeaseId, Offset, SubscriptionId};
use time::{Duration, OffsetDateTime};

use crate::harness::log::{Log, hot, noise};
use crate::harness::property::each_case;
use crate::receive::mask_events::{Ask, Event, Pick, SUBSCRIPTIONS, Turn, event};

const CASES: u32 = 48;
const EVENTS: usize = 40;
/// Changes pick from this many of the newest leases, so that many are current and some are not.
const NEWEST: usize = 24;

/// The expected state of a message that was handed out and is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// The lease that changes it; `None`: a new one that was not reported.
    lease: Option<LeaseId>,
    deadline: OffsetDateTime,
    attempt: i32,
    delayed: bool,
    first_failed_at: Option<OffsetDateTime>,
    last_failed_at: Option<OffsetDateTime>,
}

impl State {
    /// When the attempt failed that ends when it is handed out again.
    fn failed_at(&self) -> Option<OffsetDateTime> {
        if self.delayed {
            self.last_failed_at
        } else {
            Some(self.deadline)
        }
    }
}

/// A lease that was reported, as it was then.
#[derive(Debug, Clone, Copy)]
struct Given {
    subscription: SubscriptionId,
    lease: LeaseId,
    base: Offset,
    bits: u64,
}

impl Given {
    fn of(lease: &Lease) -> Self {
        Self {
            subscription: lease.key.subscription,
            lease: lease.key.lease,
            base: lease.base,
            bits: lease.pending,
        }
    }
}

type Message = (SubscriptionId, Offset);

struct World {
    lane: LaneId,
    subscriptions: [SubscriptionId; SUBSCRIPTIONS],
    leased: BTreeMap<Message, State>,
    given: Vec<Given>,
    /// The next fresh message of each subscription.
    next: [i64; SUBSCRIPTIONS],
    published: i64,
}

fn messages(
    subscription: SubscriptionId,
    base: Offset,
    bits: u64,
) -> impl Iterator<Item = Message> {
    let set = (0..64).filter(move |bit| bits >> bit & 1 == 1);
    set.map(move |bit| (subscription, base.plus(bit)))
}

fn after(at: OffsetDateTime, seconds: u32) -> OffsetDateTime {
    at + Duration::seconds(i64::from(seconds))
}

impl World {
    async fn new(log: &mut Log, case: u32) -> Self {
        let (topic, lane) = log.topic(&format!("t{case}"), false, 3_600).await;
        let mut subscriptions = [SubscriptionId::new(0); SUBSCRIPTIONS];
        for (number, subscription) in subscriptions.iter_mut().enumerate() {
            *subscription = log.subscription(&format!("s{case}-{number}"), topic).await;
        }
        Self {
            lane,
            subscriptions,
            leased: BTreeMap::new(),
            given: Vec::new(),
            next: [0; SUBSCRIPTIONS],
            published: 0,
        }
    }

    async fn turn(&mut self, log: &mut Log, turn: &Turn) {
        let changes = self.changes(&turn.picks);
        let claims = self.claims(log, &turn.asks);
        let block = hot(self.lane, turn.messages, noise(20));
        let input = TurnInput {
            blocks: Vec::from_iter((turn.messages > 0).then_some(block)),
            changes,
            claims,
            ..TurnInput::default()
        };
        let mut session = log.store.session().await.unwrap();
        let output = run(&mut session, log.clock.now(), &input).await.unwrap();
        self.published += i64::from(turn.messages);
        self.changed(&input.changes, &output);
        assert_eq!(output.gone, [0_usize; 0]);
        for (index, claim) in input.claims.iter().enumerate() {
            let due = self.due(index, claim, &output);
            self.fresh(claim, due, &output);
        }
    }

    /// Changes with disjoint masks, sorted, one per lease and action.
    fn changes(&self, picks: &[Pick]) -> Vec<LeaseChange> {
        let newest = &self.given[self.given.len().saturating_sub(NEWEST)..];
        let mut taken: BTreeMap<(SubscriptionId, LeaseId), u64> = BTreeMap::new();
        let mut masks: BTreeMap<(SubscriptionId, LeaseId, LeaseAction), u64> = BTreeMap::new();
        for pick in picks.iter().filter(|_| !newest.is_empty()) {
            let given = newest[pick.lease.index(newest.len())];
            let taken = taken.entry((given.subscription, given.lease)).or_default();
            let span = (u64::MAX >> (64 - pick.count)) << pick.start;
            let mask = span & given.bits & !*taken;
            *taken |= mask;
            if mask != 0 {
                let key = (given.subscription, given.lease, pick.action);
                *masks.entry(key).or_default() |= mask;
            }
        }
        let lane = self.lane;
        let changes = masks.into_iter();
        let changes = changes.map(|((subscription, lease, action), mask)| LeaseChange {
            lane,
            subscription,
            lease,
            action,
            mask,
            max_attempts: None,
        });
        changes.collect()
    }

    fn claims(&self, log: &Log, asks: &[Option<Ask>; SUBSCRIPTIONS]) -> Vec<Claim> {
        let claim = |(subscription, ask): (&SubscriptionId, &Option<Ask>)| {
            let ask = ask.as_ref()?;
            let low = self
                .of(*subscription)
                .map(|(_, state)| state.deadline)
                .min();
            let scan = Scan {
                // What this turn makes due has no earlier deadline than now.
                low: low.min(log.clock.now()).filter(|_| ask.has_low),
            };
            Some(Claim {
                lane: self.lane,
                subscription: *subscription,
                wanted: ask.wanted,
                fresh: ask.wanted * ask.fresh_quarters / 4,
                visibility_seconds: ask.visibility_seconds,
                max_attempts: ask.max_attempts,
                scan: ask.scans.then_some(scan),
            })
        };
        self.subscriptions
            .iter()
            .zip(asks)
            .filter_map(claim)
            .collect()
    }

    fn of(&self, subscription: SubscriptionId) -> impl Iterator<Item = (&Message, &State)> {
        self.leased
            .iter()
            .filter(move |((of, _), _)| *of == subscription)
    }

    fn base(&self, lease: LeaseId) -> Offset {
        let mut given = self.given.iter();
        given.find(|given| given.lease == lease).unwrap().base
    }

    /// Applies changes, and compares them with the results.
    fn changed(&mut self, changes: &[LeaseChange], output: &TurnOutput) {
        let at = output.at;
        let mut aside: BTreeMap<Message, (usize, Lease)> = BTreeMap::new();
        for (change, lease) in &output.aside {
            let subscription = changes[*change].subscription;
            assert_eq!(lease.key.subscription, subscription);
            for message in messages(subscription, lease.base, lease.pending) {
                let twice = aside.insert(message, (*change, *lease));
                assert!(twice.is_none(), "{message:?} is in two leases");
            }
        }
        for (index, change) in changes.iter().enumerate() {
            let base = self.base(change.lease);
            let mut expected = 0;
            for message in messages(change.subscription, base, change.mask) {
                let Some(state) = self.leased.get_mut(&message) else {
                    continue;
                };
                if state.lease != Some(change.lease) {
                    continue;
                }
                expected |= 1 << message.1.since(base);
                match change.action {
                    LeaseAction::Settle => {
                        self.leased.remove(&message);
                        continue;
                    }
                    LeaseAction::Hide(_) => {}
                    LeaseAction::GiveBack(_) => {
                        state.attempt = (state.attempt - 1).max(0);
                        (state.lease, state.delayed) = (None, true);
                    }
                    LeaseAction::Return(_) | LeaseAction::SetAside(_) => {
                        state.first_failed_at.get_or_insert(at);
                        (state.last_failed_at, state.lease, state.delayed) = (Some(at), None, true);
                    }
                }
                state.deadline = after(at, change.action.seconds());
                if matches!(change.action, LeaseAction::SetAside(_)) {
                    let (of, lease) = aside.remove(&message).expect("it is reported");
                    assert_eq!(of, index);
                    state.lease = Some(lease.key.lease);
                    assert_eq!(state_of(&lease), *state);
                }
            }
            assert_eq!(output.changed[index], expected, "{change:?}");
        }
        assert!(aside.is_empty(), "{aside:?} was not to be set aside");
        self.give(output.aside.iter().map(|(_, lease)| Given::of(lease)));
    }

    fn give(&mut self, given: impl Iterator<Item = Given>) {
        for one in given {
            let mut before = self.given.iter();
            assert!(
                before.all(|given| given.lease != one.lease),
                "{one:?} has an old id"
            );
            self.given.push(one);
        }
    }

    /// Hands out again what a claim has found; returns the number of messages.
    fn due(&mut self, index: usize, claim: &Claim, output: &TurnOutput) -> u32 {
        let mine = output.due.iter().filter(|(claim, _)| *claim == index);
        let leases: Vec<Lease> = mine.map(|(_, lease)| *lease).collect();
        if claim.scan.is_none() {
            assert!(leases.is_empty(), "{leases:?} without a scan");
            return 0;
        }
        let (mut got, mut latest) = (0, None);
        for lease in &leases {
            let first = lease.base.plus(i64::from(lease.pending.trailing_zeros()));
            let before = self.leased[&(claim.subscription, first)];
            let is_spent = claim.max_attempts.is_some_and(|max| before.attempt >= max);
            got += if is_spent {
                0
            } else {
                lease.pending.count_ones()
            };
            latest = latest.max(Some(before.deadline));
            for message in messages(claim.subscription, lease.base, lease.pending) {
                let state = self.leased.get_mut(&message).expect("it is not settled");
                assert!(
                    state.deadline <= output.at,
                    "{message:?} is hidden: {state:?}"
                );
                let failed_at = state.failed_at();
                let seconds = if is_spent {
                    ASIDE_SECONDS
                } else {
                    claim.visibility_seconds
                };
                *state = State {
                    lease: Some(lease.key.lease),
                    deadline: after(output.at, seconds),
                    attempt: state.attempt + i32::from(!is_spent),
                    delayed: is_spent,
                    first_failed_at: state.first_failed_at.or(failed_at),
                    last_failed_at: failed_at,
                };
                assert_eq!(state_of(lease), *state, "{message:?}");
            }
        }
        assert!(got <= claim.wanted, "{got} in {leases:?}");
        let seen = output.seen[index];
        assert_eq!(usize::try_from(seen).unwrap(), leases.len());
        let taken: BTreeSet<LeaseId> = leases.iter().map(|lease| lease.key.lease).collect();
        let left = self.of(claim.subscription).map(|(_, state)| state);
        let left = left.filter(|state| state.deadline <= output.at);
        let left = left.filter(|state| state.lease.is_none_or(|lease| !taken.contains(&lease)));
        let earliest = left.map(|state| state.deadline).min();
        if got < claim.wanted && seen < claim.wanted {
            assert_eq!(earliest, None, "{got} of {}, and more is due", claim.wanted);
        }
        assert!(
            earliest.is_none() || latest <= earliest,
            "the earliest deadline comes first"
        );
        self.give(leases.iter().map(Given::of));
        got
    }

    /// Hands out the fresh messages of a claim that has got `due` others.
    fn fresh(&mut self, claim: &Claim, due: u32, output: &TurnOutput) {
        let of = self
            .subscriptions
            .iter()
            .position(|of| *of == claim.subscription)
            .unwrap();
        let room = i64::from(claim.fresh.min(claim.wanted - due));
        let end = self.published.min(self.next[of] + room);
        let mine = output
            .leased
            .iter()
            .filter(|leased| leased.subscription == claim.subscription);
        for leased in mine.copied() {
            assert_eq!(
                leased.base,
                Offset::new(self.next[of]),
                "in order, without a gap"
            );
            let bits = u64::MAX >> (64 - leased.count);
            let state = State {
                lease: Some(leased.lease),
                deadline: after(output.at, claim.visibility_seconds),
                attempt: 1,
                delayed: false,
                first_failed_at: None,
                last_failed_at: None,
            };
            for message in messages(claim.subscription, leased.base, bits) {
                assert!(self.leased.insert(message, state).is_none());
            }
            self.next[of] += i64::from(leased.count);
            self.give(
                [Given {
                    subscription: claim.subscription,
                    lease: leased.lease,
                    base: leased.base,
                    bits,
                }]
                .into_iter(),
            );
        }
        assert_eq!(self.next[of], end, "as many as are wanted and there are");
    }

    /// The rows hold exactly the messages that are not settled, each once, in the state of the model (I2).
    async fn check(&self, log: &mut Log) {
        let rows = "SELECT subscription_id, lease_id, base, pending, deadline, attempt, delayed, first_failed_at,
                           last_failed_at, waiting OR order_key IS NOT NULL AS is_fair
                    FROM lease WHERE lane_id = $1";
        let rows: Vec<Row> = sqlx::query_as(rows)
            .bind(self.lane)
            .fetch_all(&mut log.sql)
            .await
            .unwrap();
        let mut held: BTreeMap<Message, State> = BTreeMap::new();
        for row in rows {
            assert!(row.pending != 0 && !row.is_fair, "{row:?}");
            let mut given = self.given.iter();
            let is_given = given.any(|given| given.lease == row.lease_id);
            for message in messages(row.subscription_id, row.base, row.pending.cast_unsigned()) {
                let state = State {
                    lease: is_given.then_some(row.lease_id),
                    deadline: row.deadline,
                    attempt: row.attempt,
                    delayed: row.delayed,
                    first_failed_at: row.first_failed_at,
                    last_failed_at: row.last_failed_at,
                };
                let twice = held.insert(message, state);
                assert!(twice.is_none(), "{message:?} is in two leases");
            }
        }
        assert_eq!(held, self.leased);
    }
}

fn state_of(lease: &Lease) -> State {
    State {
        lease: Some(lease.key.lease),
        deadline: lease.deadline,
        attempt: lease.attempt,
        delayed: lease.delayed,
        first_failed_at: lease.first_failed_at,
        last_failed_at: lease.last_failed_at,
    }
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    subscription_id: SubscriptionId,
    lease_id: LeaseId,
    base: Offset,
    pending: i64,
    deadline: OffsetDateTime,
    attempt: i32,
    delayed: bool,
    first_failed_at: Option<OffsetDateTime>,
    last_failed_at: Option<OffsetDateTime>,
    is_fair: bool,
}

#[test]
fn no_order_of_events_puts_a_message_in_two_places_or_lets_an_old_receipt_change_it() {
    each_case(CASES, EVENTS, event(), async |log, case, events| {
        let mut world = World::new(log, case).await;
        for event in events {
            match event {
                Event::Pass(seconds) => log.clock.advance(std::time::Duration::from_secs(*seconds)),
                Event::Turn(turn) => world.turn(log, turn).await,
            }
            world.check(log).await;
        }
    });
}
