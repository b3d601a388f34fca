//! Extraction of requests before a handler runs: the caller and its permission, names in the path, queries, headers,
//! bodies and their coding. Each part refuses invalid input and names the field (I9).

pub(in crate::http) mod admission;
pub(in crate::http) mod batch;
pub(in crate::http) mod body;
pub(in crate::http) mod caller;
pub(in crate::http) mod condition;
pub(in crate::http) mod cors;
pub(in crate::http) mod deadline;
pub(in crate::http) mod decoding;
pub(in crate::http) mod digest;
pub(in crate::http) mod draft;
mod forwarded;
pub(in crate::http) mod head;
pub(in crate::http) mod held;
pub(in crate::http) mod json;
pub(in crate::http) mod local;
pub(in crate::http) mod options;
pub(in crate::http) mod path;
pub(in crate::http) mod query;
pub(in crate::http) mod trace;
pub(in crate::http) mod waiting;
