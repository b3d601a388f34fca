//! The resources of a tenant: topics and subscriptions. Each change is one transaction that writes the row, records the
//! change in the audit log and bumps the catalog version by which other nodes notice it (`watch`).

mod subscriptions;
mod topics;
