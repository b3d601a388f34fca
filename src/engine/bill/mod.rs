//! Money. A plan has versions (`plans`), a tenant has plans by day (`tenant_plans`); together they are its `schedule` of
//! prices, each a `ladder` of tiers. A row of usage has priced `portion`s. `usage`, `month` and `focus` show usage with
//! its cost, `budgets` and `spend` compare the month with what a tenant wants to spend, `usage_events` reports usage to
//! sinks. Metering (`engine::meter`) knows no price: it counts, and this room reads what was counted.

mod budgets;
mod currency;
mod estimate;
pub mod events;
pub mod focus;
mod ladder;
pub mod month;
mod plan_rows;
pub mod plans;
mod portion;
pub mod schedule;
pub mod spend;
pub mod tenant_plans;
pub mod usage;
pub mod usage_after;
pub mod usage_events;
pub mod window;
