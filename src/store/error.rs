//! The errors of the database, by cause.

use std::sync::Arc;

use super::trouble::Trouble;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The database cannot do its work at the moment, or the connection broke: the outcome may be unknown.
    #[error("{}", Trouble::of(.0).summary())]
    Unavailable(#[source] sqlx::Error),
    /// The transaction was rolled back because of another one (a deadlock, a serialization failure). It had no effect,
    /// and a retry helps.
    #[error("another transaction was in the way")]
    Raced(#[source] sqlx::Error),
    /// Another transaction holds a row for longer than the session waits for a lock. Nothing was done.
    #[error("another transaction holds a lock for too long")]
    Locked(#[source] sqlx::Error),
    /// The database turned out to have another history than what the statement was made for. Nothing was done.
    #[error("the database has another history now")]
    OtherHistory,
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
    #[error("the database refused a statement{}", advice(.0))]
    Database(#[source] sqlx::Error),
}

/// What to do about a refusal, in brackets.
fn advice(error: &sqlx::Error) -> String {
    match Trouble::of(error).advice() {
        "" => String::new(),
        advice => format!(" ({advice})"),
    }
}

/// No connection could be made, or none was free.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct Unreachable {
    pub(super) trouble: Trouble,
    /// Each host with its refusal, and what to do.
    pub(super) detail: Arc<str>,
}

impl Unreachable {
    /// A trouble of the node itself.
    pub(super) fn here(trouble: Trouble) -> Self {
        let detail = format!("{}: {}", trouble.summary(), trouble.advice());
        Self {
            trouble,
            detail: detail.into(),
        }
    }
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
            || Trouble::of(&error) == Trouble::Full
        {
            return Self::Unavailable(error);
        }
        if code == "55P03" {
            return Self::Locked(error);
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

    /// Whether the connection is of no further use, or there is none.
    #[must_use]
    pub fn is_of_connection(&self) -> bool {
        let Self::Unavailable(error) = self else {
            return matches!(self, Self::Unreachable(_));
        };
        // 57P01 to 57P05 end the session. 57014 ends a statement.
        error.as_database_error().is_none_or(|refusal| {
            let code = refusal.code().unwrap_or_default();
            code.starts_with("08") || code.starts_with("57P") || code.starts_with("25")
        })
    }

    /// Whether the database is at fault, and not the statement.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unavailable(_))
    }

    /// What is the matter with the database.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Unreachable(unreachable) => unreachable.trouble,
            Self::Unavailable(error)
            | Self::Raced(error)
            | Self::Locked(error)
            | Self::Database(error) => Trouble::of(error),
            Self::Strict | Self::OtherHistory | Self::Conflict(_) | Self::Corrupt { .. } => {
                Trouble::Other
            }
        }
    }
}

/// Whether the database refused a statement with this code.
pub(super) fn is_code(error: &sqlx::Error, code: &str) -> bool {
    is_one_of(error, &[code])
}

/// Whether the database refused a statement with one of these codes.
pub(super) fn is_one_of(error: &sqlx::Error, codes: &[&str]) -> bool {
    let found = error.as_database_error().and_then(|error| error.code());
    found.is_some_and(|found| codes.contains(&&*found))
}
