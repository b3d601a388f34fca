//! The nodes of one installation: what they notice of each other's changes (`watch`), how they show that they are alive
//! (`upkeep`) and how they wake each other's receivers (`wake`). No message depends on it.

pub mod expire_nodes;
pub mod upkeep;
pub mod wake;
pub mod watch;
