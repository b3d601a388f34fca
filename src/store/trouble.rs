//! What keeps the database from its work, told from the errors of sqlx, and what an operator does about it. `error` and
//! `connect` say it, and `/readyz` in few words. A trouble has no names of hosts or users: clients may read it.

use sqlx::Error;

use crate::causes;

/// Why the database cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It takes no writes.
    ReadOnly,
    /// Its disk is full.
    Full,
    /// It has no connection left for this role or database, or at all.
    NoConnectionLeft,
    /// All connections of this node are in use.
    AllInUse,
    /// It starts, stops or recovers.
    Starting,
    /// The role or its password is refused.
    Login,
    /// The role lacks a right.
    NoRight,
    /// There is no such database.
    NoDatabase,
    /// A pooler refuses or drops what a session needs.
    Pooler,
    /// The server is too old.
    Version,
    /// The server's certificate is of a version without extensions.
    OldCertificate,
    /// The server's certificate is signed by an unknown authority.
    UnknownIssuer,
    /// The server's certificate is for another host.
    OtherName,
    /// The server has no TLS.
    NoTls,
    /// TLS failed for another reason.
    Tls,
    /// It refuses connections, or they break.
    Connection,
    /// It does not respond in time.
    NoAnswer,
    /// Anything else.
    Other,
}

impl Trouble {
    pub(super) fn of(error: &Error) -> Self {
        if let Some(refusal) = error.as_database_error() {
            return Self::of_code(&refusal.code().unwrap_or_default(), refusal.message());
        }
        // The variants of `sqlx::Error` for pools and transactions are not used: `pool` and `session` do both.
        if let Error::Tls(_) = error {
            return Self::of_tls(&causes::in_line(error));
        }
        if let Error::Io(io) = error {
            // rustls reports a failed handshake as an error of the stream.
            let text = causes::in_line(error);
            return if io.kind() == std::io::ErrorKind::InvalidData && text.contains("certificate") {
                Self::of_tls(&text)
            } else if io.kind() == std::io::ErrorKind::TimedOut {
                Self::NoAnswer
            } else {
                Self::Connection
            };
        }
        if let Error::PoolTimedOut = error {
            return Self::NoAnswer;
        }
        Self::Other
    }

    fn of_code(code: &str, message: &str) -> Self {
        // A server that cannot write its own files says so with the code of an internal error.
        if code == "53100" || message.contains("No space left on device") {
            return Self::Full;
        }
        match code {
            "25006" => Self::ReadOnly,
            "53300" => Self::NoConnectionLeft,
            "57P01" | "57P02" | "57P03" => Self::Starting,
            "28000" | "28P01" => Self::Login,
            "42501" => Self::NoRight,
            "3D000" => Self::NoDatabase,
            // Prepared statements that another session made, or that went with one.
            "08P01" | "26000" | "42P05" => Self::Pooler,
            _ if code.starts_with("08") => Self::Connection,
            _ => Self::Other,
        }
    }

    fn of_tls(text: &str) -> Self {
        let known = [
            ("UnsupportedCertVersion", Self::OldCertificate),
            ("UnknownIssuer", Self::UnknownIssuer),
            ("not valid for", Self::OtherName),
            ("NotValidForName", Self::OtherName),
            ("does not support TLS", Self::NoTls),
        ];
        let found = known.iter().find(|(part, _)| text.contains(part));
        found.map_or(Self::Tls, |(_, trouble)| *trouble)
    }

    /// Whether it may pass without anybody doing anything, so that trying again is of use.
    pub(super) fn may_pass(self) -> bool {
        match self {
            Self::ReadOnly
            | Self::Full
            | Self::NoConnectionLeft
            | Self::AllInUse
            | Self::Starting
            | Self::Connection
            | Self::NoAnswer
            | Self::Other => true,
            Self::Login
            | Self::NoRight
            | Self::NoDatabase
            | Self::Pooler
            | Self::Version
            | Self::OldCertificate
            | Self::UnknownIssuer
            | Self::OtherName
            | Self::NoTls
            | Self::Tls => false,
        }
    }

    /// The trouble in a few words.
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            Self::ReadOnly => "the database takes no writes",
            Self::Full => "the disk of the database is full",
            Self::NoConnectionLeft => "the database has no connection left",
            Self::AllInUse => "all connections of this node to the database are in use",
            Self::Starting => "the database is starting or stopping",
            Self::Login => "the database refuses the role or its password",
            Self::NoRight => "the role of this node lacks a right",
            Self::NoDatabase => "there is no such database",
            Self::Pooler => "a pooler refuses or drops the settings of sessions",
            Self::Version => "the database is too old",
            Self::OldCertificate
            | Self::UnknownIssuer
            | Self::OtherName
            | Self::NoTls
            | Self::Tls => "there is no TLS connection to the database",
            Self::Connection => "there is no connection to the database",
            Self::NoAnswer => "the database does not answer",
            Self::Other => "the database failed",
        }
    }

    /// What to do about it; empty if nothing can be said.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::ReadOnly => {
                "it is a standby, or is set read-only: name the primary in DATABASE_URL, or all hosts (host1:5432,host2:5432)"
            }
            Self::Full => "free or add space on its disk",
            Self::NoConnectionLeft => {
                "raise max_connections of the server or CONNECTION LIMIT of the role or database, or lower \
                 --database-connections"
            }
            Self::AllInUse => "raise --database-connections",
            Self::Login => "check user and password in DATABASE_URL, and pg_hba.conf of the server",
            Self::NoRight => {
                "GRANT the role SELECT, INSERT, UPDATE, DELETE and TRUNCATE on all tables; a node that migrates the schema \
                 owns it"
            }
            Self::NoDatabase => "create it, or correct its name in DATABASE_URL",
            Self::Pooler => "connect directly, or set the pooler to session mode",
            Self::Version => "Postgres 15 or later is needed",
            Self::OldCertificate => {
                "its certificate is X.509 version 1: give the server one of version 3, or set sslmode=disable on a network \
                 that you trust"
            }
            Self::UnknownIssuer => {
                "its certificate is signed by an unknown authority: set sslrootcert=FILE to the certificate of the authority"
            }
            Self::OtherName => {
                "its certificate is for another host: use a name of the certificate in DATABASE_URL, or sslmode=verify-ca"
            }
            Self::NoTls => {
                "the server has TLS switched off: switch it on (ssl = on), or set sslmode=disable on a network that you trust"
            }
            Self::Tls => "see sslmode, sslrootcert, sslcert and sslkey in DATABASE_URL",
            Self::Starting | Self::Connection | Self::NoAnswer | Self::Other => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_the_server_is_told_by_what_it_means_for_a_node() {
        let of = Trouble::of_code;
        let init = "could not write init file: No space left on device";
        assert_eq!(of("XX000", init), Trouble::Full);
        assert_eq!(of("53300", ""), Trouble::NoConnectionLeft);
        assert_eq!(of("25006", ""), Trouble::ReadOnly);
        assert_eq!(of("08P01", ""), Trouble::Pooler);
        assert_eq!(of("08006", ""), Trouble::Connection);
        assert_eq!(of("XX000", "anything"), Trouble::Other);
    }

    #[test]
    fn a_refusal_of_tls_is_told_by_its_cause() {
        for (text, trouble) in [
            (
                "Other(OtherError(UnsupportedCertVersion))",
                Trouble::OldCertificate,
            ),
            (
                "invalid peer certificate: UnknownIssuer",
                Trouble::UnknownIssuer,
            ),
            (
                "invalid peer certificate: certificate not valid for name \"a\"",
                Trouble::OtherName,
            ),
            ("server does not support TLS", Trouble::NoTls),
            ("received fatal alert: HandshakeFailure", Trouble::Tls),
        ] {
            let error = std::io::Error::other(text);
            assert_eq!(Trouble::of(&Error::Tls(error.into())), trouble);
        }
    }
}
