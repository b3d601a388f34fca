//! Nodes of one installation, inside the test and as the real binary: start, stop, kill, duties, embedded mode.

mod binary;
mod crash;
mod embedded;
mod failover;
mod history;
mod machine;
mod nodes;
mod pooler;
mod refusals;
mod restore;
mod settings;
mod upgrade;
mod worker;
