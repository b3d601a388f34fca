//! Types of ids, one a table, and of offsets, so that the compiler refuses a lane where a subscription belongs. In the
//! database each is a `bigint`, and it is bound and read as one. `store` and `engine` use them everywhere. Codecs, logs
//! and the shards of maps convert them with `new` and `get`.

use std::fmt;

/// Declares the id of a table.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, sqlx::Type)]
        #[sqlx(transparent)]
        pub struct $name(i64);

        impl $name {
            /// Lower than every id in the database: a walk in the order of ids starts after it.
            pub const BEFORE_ALL: Self = Self(-1);
            /// The id of no row. It stands for an id that an insert assigns.
            pub const UNASSIGNED: Self = Self(0);

            /// The id with this number.
            #[must_use]
            pub const fn new(id: i64) -> Self {
                Self(id)
            }

            /// Its number.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// The id of a lane.
    LaneId
}
id! {
    /// The id of a lease. The parts of a lease share it.
    LeaseId
}
id! {
    /// The id of a subscription.
    SubscriptionId
}
id! {
    /// The id of a topic.
    TopicId
}
id! {
    /// The id of a tenant.
    TenantId
}

impl TenantId {
    /// The service itself (migration 0020). It owns what events go through to the URLs of sinks. Its name is empty, so that no
    /// request can name it. No key and no token opens it, it has no quota, and nothing of it is billed.
    pub const SYSTEM: Self = Self(-2);
}

/// The number of a history of the database (`history`). It is part of the ids of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, sqlx::Type)]
#[sqlx(transparent)]
pub struct Era(i32);

impl Era {
    /// The era of a database that has never lost anything, as far as its nodes know.
    pub const FIRST: Self = Self(0);

    /// The era with this number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number as i32)
    }

    /// Its number.
    #[must_use]
    pub fn get(self) -> u16 {
        u16::try_from(self.0).unwrap_or(0)
    }

    /// The next one. After 65,535 they begin again.
    #[must_use]
    pub fn next(self) -> Self {
        Self::new(self.get().wrapping_add(1))
    }
}

/// The numbers of the leases of an era begin at its number times two to this power (`history`).
pub(super) const LEASE_BITS: u32 = 32;

impl LeaseId {
    /// Whether it was given in this era, and not in one before.
    #[must_use]
    pub fn is_of(self, era: Era) -> bool {
        self.0 >> LEASE_BITS >= i64::from(era.get())
    }
}

/// The offset of a message in its lane. The first one is 0, and each message has the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, sqlx::Type)]
#[sqlx(transparent)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of every lane.
    pub const START: Self = Self(0);
    /// Above the offsets of all messages.
    pub const MAX: Self = Self(i64::MAX);

    /// The offset with this number.
    #[must_use]
    pub const fn new(offset: i64) -> Self {
        Self(offset)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset that lies this many messages behind it, [`Offset::MAX`] at most.
    #[must_use]
    pub const fn plus(self, messages: i64) -> Self {
        Self(self.0.saturating_add(messages))
    }

    /// The number of messages from `first` up to it; negative when it comes before `first`.
    #[must_use]
    pub const fn since(self, first: Self) -> i64 {
        self.0 - first.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key of a cursor, and of what goes with it: the fair order and the waiting leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorKey {
    /// Lane.
    pub lane: LaneId,
    /// Subscription.
    pub subscription: SubscriptionId,
}
