//! The resources of a tenant: topics and subscriptions. Each change is one transaction that writes the row, records the
//! change in the audit log and raises the catalog version. Other nodes poll that version (`fleet::watch`).

mod subscriptions;
mod topics;
