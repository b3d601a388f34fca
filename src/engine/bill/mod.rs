//! Prices, costs and budgets. A plan has versions (`plans`), and a tenant has plans by day (`tenant_plans`). Together
//! they are its `schedule` of prices; each price is a `ladder` of tiers. A row of usage has priced `portion`s. `usage`,
//! `month` and `focus` return usage with its cost. `budgets` and `spend` compare the cost of a month with the tenant's
//! budgets. `usage_events` reports usage to event sinks. Metering (`engine::meter`) counts and knows no prices; this
//! room reads its counts.

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
