//! Topics and subscriptions: create, change, show and delete.

mod subscriptions;
mod topics;
