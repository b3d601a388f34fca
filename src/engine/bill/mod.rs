//! Money: price plans and their versions, what a tenant's usage costs, budgets, and the events that report usage.

mod budgets;
pub mod events;
pub mod focus;
pub mod month;
pub mod plans;
pub mod price;
pub mod spend;
pub mod tenant_plans;
pub mod usage;
pub mod usage_events;
pub mod window;
