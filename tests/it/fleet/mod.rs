//! Nodes of one installation, inside the test and as the real binary: start, stop, kill, duties, embedded mode.

mod binary;
mod crash;
mod embedded;
mod machine;
mod nodes;
mod settings;
mod worker;
