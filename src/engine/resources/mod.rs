//! The resources of a tenant: topics, subscriptions and their endpoints. Each change is one transaction that writes the row, records the
//! change in the audit log and raises the catalog version. Other nodes poll that version (`fleet::watch`).

mod endpoints;
mod subscriptions;
mod topics;

pub(in crate::engine) use subscriptions::end as end_subscription;
