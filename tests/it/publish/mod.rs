//! Publishing: repeated publishes, large bodies and batches, and headers of a message.

mod dedup;
mod large;
mod traces;
