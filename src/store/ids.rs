//! Types of ids, one a table, so that the compiler refuses a lane where a subscription belongs. In the database each is
//! a `bigint` and is bound and read as one. `store` and `engine` use them everywhere; the codecs of receipts and other
//! stored texts convert them with `new` and `get`.

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

/// The key of a cursor, and of what goes with it: the fair order and the waiting leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorKey {
    /// Lane.
    pub lane: LaneId,
    /// Subscription.
    pub subscription: SubscriptionId,
}
