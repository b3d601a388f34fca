//! The storage of payloads from publish to deletion, one duty a file. `rotate` switches to the next hot slot. `offload`
//! packs payloads into objects, with the help of `walk`. `expire` deletes what is consumed or too old. `collect`
//! deletes objects that no block refers to. None of them deletes a payload that a subscription can still need (I5).

pub mod collect;
pub mod expire;
pub mod offload;
pub mod rotate;
mod walk;
