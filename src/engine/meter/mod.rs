//! Metering: what tenants used, counted so that no unit is lost or billed twice (I8). Knows units and times, no price.
//! `measure` says what a message counts for, `blocks` adds up what blocks carry, `deliveries` counts what no block records,
//! `capacity` meters guarantees by time, `roll_up` turns minutes into hours and days.

pub mod blocks;
pub mod capacity;
pub mod deliveries;
pub mod measure;
mod metered;
pub mod roll_up;

pub use metered::Metered;
