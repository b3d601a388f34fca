//! The errors of the database, by cause.

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not respond, or the connection broke: the outcome may be unknown.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// The transaction was rolled back because of another one (a deadlock, a serialization failure). It had no effect,
    /// and a retry helps.
    #[error("another transaction was in the way")]
    Raced(#[source] sqlx::Error),
    /// A strict turn did nothing: a lane is gone, or a lease has changed.
    #[error("a lane is gone or a lease has changed")]
    Strict,
    /// A constraint was violated; its name.
    #[error("constraint {0} is violated")]
    Conflict(String),
    /// A row with a value that the schema rules out.
    #[error("corrupt row in {table}.{column}: {row}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        row: String,
    },
    /// Any other error of the database.
    #[error("the database refused a statement")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        // Classes: 08 connection, 53 resources, 57 operator intervention. Codes: 25006 read-only (a failover), 25P03
        // idle in a transaction for too long. All of these pass.
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
        // Class 40 is a transaction rollback. Except for 40003: there it is unknown whether the statement was
        // completed.
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

/// Whether the database refused a statement with this code.
pub(super) fn is_code(error: &sqlx::Error, code: &str) -> bool {
    let found = error.as_database_error().and_then(|error| error.code());
    found.as_deref() == Some(code)
}
