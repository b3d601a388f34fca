//! Publishing: the same message twice, large bodies and batches, and what a producer says about a message.

mod dedup;
mod large;
mod traces;
