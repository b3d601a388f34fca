//! What can go wrong in the database, by cause.

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not answer, or broke the connection: the outcome may be unknown.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction was in the way (a deadlock, a serialization failure), and this one was rolled back: nothing was
    /// done, and trying again helps.
    #[error("another transaction was in the way")]
    Raced(#[source] sqlx::Error),
    /// A constraint, by name.
    #[error("constraint {0} is violated")]
    Conflict(String),
    /// A row that the schema should have made impossible.
    #[error("corrupt row in {table}.{column}: {row}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        row: String,
    },
    /// Anything else the database refused.
    #[error("the database refused a statement")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        // 08 connection, 53 resources, 57 operator intervention, 25006 read-only (a failover), 25P03 idle in a transaction for
        // too long: the server will be back.
        let Some(refusal) = error.as_database_error() else {
            return Self::Unavailable(error);
        };
        let code = refusal.code().unwrap_or_default();
        if ["08", "53", "57"]
            .iter()
            .any(|class| code.starts_with(class))
            || ["25006", "25P03"].contains(&&*code)
        {
            return Self::Unavailable(error);
        }
        // 40 transaction rollback, but 40003: whether the statement was completed is unknown.
        if code.starts_with("40") {
            return if code == "40003" {
                Self::Unavailable(error)
            } else {
                Self::Raced(error)
            };
        }
        match refusal.constraint() {
            Some(constraint) => Self::Conflict(constraint.to_owned()),
            None => Self::Database(error),
        }
    }
}

impl Error {
    /// The database took too long.
    #[must_use]
    pub fn timed_out() -> Self {
        Self::Unavailable(sqlx::Error::PoolTimedOut)
    }
}
