//! What is checked below HTTP or without it: migrations, statements of the store, openapi.json, the shape of the tree.

mod docs;
mod groups;
mod migrations;
mod openapi;
mod rooms;
mod store;
mod tidy;
mod turn;
