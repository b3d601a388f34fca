//! Publishing: repeated publishes, large bodies and batches, and headers of a message.

mod dedup;
mod full_disk;
mod keys;
mod large;
mod races;
mod traces;
