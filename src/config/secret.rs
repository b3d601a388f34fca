//! A string that is never printed: the database URL and the keys of object storage. Only code that passes it to a
//! client calls `expose`, so a search for that word finds every use of a secret.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// Printed in place of a secret.
pub(super) const HIDDEN: &str = "***";

/// A secret; `Debug` and `Display` print [`HIDDEN`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the client that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}
