//! Where payloads lie until they are gone: hot slots, offloading, object storage, reading, retention, collection.

mod blob;
mod blob_settings;
mod collect;
mod ends;
mod offload;
mod reads;
mod retention;
mod slots;
mod streams;
