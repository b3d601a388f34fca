//! The ranges of wire types. A request is checked once, by `http` when it is read (`http::request::json`); the engine relies on
//! it. Each type has its `impl` next to its fields.

use crate::error::FieldError;

/// A wire type that has ranges its shape does not show.
pub trait Validate {
    /// The fields that are out of range, or do not go together.
    #[must_use]
    fn validate(&self) -> Vec<FieldError>;
}
