//! Publishing: the same message twice, large bodies and batches, and what a producer sends along with a message.

mod dedup;
mod large;
mod traces;
