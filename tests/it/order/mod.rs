//! Who is next when it is not the order of the log: the fair order of customers inside a subscription.

pub(crate) mod fair;
mod fair_life;
mod fair_line;
