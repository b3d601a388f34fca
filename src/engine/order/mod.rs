//! Who is next when it is not the order of the log.

pub mod fair;
