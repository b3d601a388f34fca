//! What handlers and extractors return as an HTTP response: problems with their rate limit headers, messages as JSON, ranges
//! of bodies, units, coding.

pub(in crate::http) mod problem;
pub(in crate::http) mod range;
pub(in crate::http) mod shown;
pub(in crate::http) mod throttle;
pub(in crate::http) mod units;
