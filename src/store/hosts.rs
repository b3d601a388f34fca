//! Where the database is: one host, or several of which one takes writes. `DATABASE_URL` is read as libpq reads it
//! (`postgres://user@a:5432,b:5433/name?target_session_attrs=read-write`). sqlx knows one host, so each gets the URL with
//! its own. No error repeats the URL, because it has a password.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// A URL that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It has no scheme, host or name where they belong.
    #[error("DATABASE_URL must look like postgres://user:password@host:5432/database")]
    Form,
    /// As many ports are named as hosts, or one for all.
    #[error(
        "DATABASE_URL names {hosts} hosts and {ports} ports: give one port, or one for each host"
    )]
    Ports {
        /// The number of hosts.
        hosts: usize,
        /// The number of ports.
        ports: usize,
    },
    /// A node writes.
    #[error(
        "DATABASE_URL asks for target_session_attrs={0}, but a node writes: use read-write or leave it out"
    )]
    Target(String),
    /// sqlx refuses a part of it.
    #[error("DATABASE_URL")]
    Part(#[source] sqlx::Error),
}

/// The hosts of a database, at least one.
#[derive(Debug, Clone)]
pub struct Hosts(Vec<PgConnectOptions>);

impl Hosts {
    pub(super) fn all(&self) -> &[PgConnectOptions] {
        &self.0
    }
}

impl From<PgConnectOptions> for Hosts {
    fn from(options: PgConnectOptions) -> Self {
        Self(vec![options])
    }
}

/// The parameters of a URL that concern several hosts, and the others.
#[derive(Default)]
struct Query<'a> {
    hosts: Option<Vec<&'a str>>,
    ports: Vec<&'a str>,
    others: Vec<&'a str>,
}

impl<'a> Query<'a> {
    fn of(text: &'a str) -> Result<Self, UrlError> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("target_session_attrs", "read-write" | "primary" | "any") => {}
                ("target_session_attrs", other) => return Err(UrlError::Target(other.to_owned())),
                ("host", hosts) => query.hosts = Some(hosts.split(',').collect()),
                ("port", ports) => query.ports = ports.split(',').collect(),
                _ => query.others.push(pair),
            }
        }
        Ok(query)
    }

    /// The port of the host at this place, if the query has one for it.
    fn port(&self, at: usize) -> Option<&'a str> {
        match self.ports[..] {
            [port] => Some(port),
            _ => self.ports.get(at).copied(),
        }
    }
}

impl FromStr for Hosts {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Form)?;
        if !["postgres", "postgresql"].contains(&scheme) {
            return Err(UrlError::Form);
        }
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let at = authority.rfind('@').map_or(0, |at| at + 1);
        let (user, in_authority) = authority.split_at(at);
        let query = Query::of(query)?;
        let places: Vec<(&str, Option<&str>)> = match &query.hosts {
            Some(hosts) => hosts.iter().map(|host| ("", Some(*host))).collect(),
            None => in_authority.split(',').map(|host| (host, None)).collect(),
        };
        let (hosts, ports) = (places.len(), query.ports.len());
        if ![0, 1, hosts].contains(&ports) {
            return Err(UrlError::Ports { hosts, ports });
        }
        let options = places.iter().enumerate().map(|(at, (authority, host))| {
            let mut pairs: Vec<String> = query.others.iter().map(ToString::to_string).collect();
            pairs.extend(host.map(|host| format!("host={host}")));
            pairs.extend(query.port(at).map(|port| format!("port={port}")));
            // sqlx reads no user before an empty host.
            let authority = if authority.is_empty() && !user.is_empty() {
                "localhost"
            } else {
                authority
            };
            format!("postgres://{user}{authority}{path}?{}", pairs.join("&"))
                .parse()
                .map_err(UrlError::Part)
        });
        Ok(Self(options.collect::<Result<_, _>>()?))
    }
}

/// A host as it is named in messages.
pub(super) fn name(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(url: &str) -> Vec<String> {
        let hosts: Hosts = url.parse().unwrap();
        hosts.all().iter().map(name).collect()
    }

    #[test]
    fn several_hosts_are_read_as_libpq_reads_them() {
        let all = "?target_session_attrs=read-write&sslmode=disable";
        assert_eq!(names("postgres://u:p@a/db"), ["a:5432"]);
        assert_eq!(
            names(&format!("postgres://u:p@a:1,b:2,[::1]:3/db{all}")),
            ["a:1", "b:2", "[::1]:3"]
        );
        assert_eq!(
            names("postgresql://u@/db?host=a,b&port=1,2"),
            ["a:1", "b:2"]
        );
        assert_eq!(names("postgres://u@a,b/db?port=7"), ["a:7", "b:7"]);
        assert_eq!(
            names("postgres:///db?host=/var/run/a,/var/run/b"),
            ["/var/run/a", "/var/run/b"]
        );
        let hosts: Hosts = "postgres://me:p%40ss@a,b/db".parse().unwrap();
        for host in hosts.all() {
            assert_eq!(host.get_username(), "me");
            assert_eq!(host.get_database(), Some("db"));
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_its_password() {
        for (url, why) in [
            ("mysql://u:hush@a/db", "must look like"),
            ("u:hush@a/db", "must look like"),
            ("postgres://u:hush@a,b,c/db?port=1,2", "3 hosts and 2 ports"),
            (
                "postgres://u:hush@a/db?target_session_attrs=standby",
                "a node writes",
            ),
            ("postgres://u:hush@a:port/db", "DATABASE_URL"),
        ] {
            let refused = url.parse::<Hosts>().unwrap_err();
            let said = format!("{refused} {refused:?}");
            assert!(said.contains(why), "{said}");
            assert!(!said.contains("hush"), "{said}");
        }
    }
}
