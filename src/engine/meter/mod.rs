//! Metering: counts what tenants use, so that no unit is lost or billed twice (I8). It knows units and times, and no
//! price. `measure` computes the units of a message, `blocks` adds up the units recorded in blocks, `deliveries` counts
//! what no block records, `capacity` meters guarantees by time, and `roll_up` turns minutes into hours and days.

pub mod blocks;
pub mod capacity;
pub mod deliveries;
pub mod measure;
mod metered;
pub mod roll_up;

pub use metered::Metered;
