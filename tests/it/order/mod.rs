//! Orders of delivery other than that of the log: the fair order of customers inside a subscription.

pub(crate) mod fair;
mod fair_life;
mod fair_line;
