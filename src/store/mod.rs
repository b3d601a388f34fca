//! All SQL, one table a file. Nothing else speaks to the database.

mod error;

pub use error::Error;
