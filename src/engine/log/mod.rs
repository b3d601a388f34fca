//! The bytes of messages. `payload` encodes and decodes messages, `pack` makes blocks of them, `block` is a block in
//! memory, `cache` keeps blocks, `reader` reads them from memory, the database or object storage, `upload` writes large
//! bodies to object storage, and `json` shows messages. Blocks are immutable.

pub mod block;
pub mod cache;
pub mod json;
pub mod pack;
pub mod payload;
pub mod reader;
pub mod upload;
