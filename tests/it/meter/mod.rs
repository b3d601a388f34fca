//! Counting: what was stored and handed out, for how long, and what of it was inside the guarantee.

mod blocks;
mod capacity;
pub(crate) mod usage;
mod usage_time;
