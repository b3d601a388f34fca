//! The bytes of messages: `payload` encodes and decodes records, `pack` makes blocks of
//! them, `block` is a block in memory, `cache` keeps blocks, `reader`
//! finds them wherever they lie, `upload` streams large bodies to object storage. Blocks are immutable.

pub mod block;
pub mod cache;
pub mod pack;
pub mod payload;
pub mod reader;
pub mod upload;
