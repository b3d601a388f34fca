//! The guard of outbound requests: which URLs, addresses and ports may be dialled. URLs are settings of tenants, yet a
//! request is sent from inside the operator's network, where services trust their neighbours. So only public addresses
//! are dialled, by https, at ports of web servers, and the networks that the operator allowed when the node was started.
//! A refusal names its rule. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::network::{Network, is_public, loopback};

/// Ports from 1024 on where something else than HTTP listens, often without a password.
const PORTS_OF_OTHERS: [(u16, &str); 20] = [
    (1433, "SQL Server"),
    (1521, "Oracle"),
    (1883, "MQTT"),
    (2049, "NFS"),
    (2181, "ZooKeeper"),
    (2375, "Docker"),
    (2376, "Docker"),
    (2379, "etcd"),
    (3306, "MySQL"),
    (3389, "remote desktops"),
    (5432, "Postgres"),
    (5672, "AMQP"),
    (5900, "VNC"),
    (6379, "Redis"),
    (9042, "Cassandra"),
    (9092, "Kafka"),
    (9200, "Elasticsearch"),
    (10250, "Kubernetes"),
    (11211, "Memcached"),
    (27017, "MongoDB"),
];

/// What is allowed apart from https to public addresses.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Vec<Network>,
    allows_http: bool,
}

impl Guard {
    /// A guard that also allows these networks, at any port.
    #[must_use]
    pub fn new(allowed: Vec<Network>) -> Self {
        Self {
            allowed,
            allows_http: false,
        }
    }

    /// Allows loopback as well.
    #[must_use]
    pub fn with_loopback(mut self) -> Self {
        self.allowed.extend(loopback());
        self
    }

    /// Allows plain http to the allowed networks. To loopback it is allowed anyway, when loopback is.
    #[must_use]
    pub fn with_http(mut self) -> Self {
        self.allows_http = true;
        self
    }

    /// Reads a URL and checks it, as far as that is possible without looking its name up.
    ///
    /// # Errors
    /// What the URL must be.
    pub fn check(&self, url: &str) -> Result<Url, String> {
        let url = Url::parse(url).map_err(|_| "must be an https URL".to_owned())?;
        self.check_url(&url)?;
        Ok(url)
    }

    /// The same for a URL that has been read.
    ///
    /// # Errors
    /// What the URL must be.
    pub fn check_url(&self, url: &Url) -> Result<(), String> {
        let is_http = url.scheme() == "http";
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err("must be an https URL".to_owned());
        };
        if !(is_http || url.scheme() == "https") {
            return Err("must be an https URL".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must have no user and no password".to_owned());
        }
        if url.fragment().is_some() {
            return Err("must have no fragment".to_owned());
        }
        match host {
            Host::Ipv4(ip) => self.permits(ip.into(), port, is_http),
            Host::Ipv6(ip) => self.permits(ip.into(), port, is_http),
            Host::Domain(name) if is_local(name) => {
                let [v4, v6] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                let permitted = self.permits(v4, port, is_http);
                permitted.or_else(|refusal| self.permits(v6, port, is_http).map_err(|_| refusal))
            }
            // The name may have an address in an allowed network, where more is permitted.
            Host::Domain(_) if self.allowed.iter().any(|network| !network.is_loopback()) => {
                if is_http && !self.allows_http {
                    return Err(refused_http());
                }
                Ok(())
            }
            Host::Domain(_) if is_http => Err(refused_http()),
            Host::Domain(_) => permits_port(port),
        }
    }

    /// Those addresses of a URL that may be dialled.
    ///
    /// # Errors
    /// When none of them may, why the first may not.
    pub fn permitted(&self, url: &Url, found: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
        let is_http = url.scheme() == "http";
        let port = url.port_or_known_default().unwrap_or_default();
        let (mut permitted, mut refusal) = (Vec::new(), None);
        for ip in found {
            match self.permits(*ip, port, is_http) {
                Ok(()) => permitted.push(*ip),
                Err(text) => refusal = refusal.or(Some(text)),
            }
        }
        match refusal {
            Some(refusal) if permitted.is_empty() => Err(refusal),
            _ => Ok(permitted),
        }
    }

    fn permits(&self, ip: IpAddr, port: u16, is_http: bool) -> Result<(), String> {
        let is_allowed = self.allowed.iter().any(|network| network.contains(ip));
        if !(is_allowed || is_public(ip)) {
            return Err(format!(
                "{ip} is not a public address; an operator can allow it with --outbound-allow"
            ));
        }
        let may_be_plain = is_allowed && (self.allows_http || ip.to_canonical().is_loopback());
        if is_http && !may_be_plain {
            return Err(refused_http());
        }
        if is_allowed {
            Ok(())
        } else {
            permits_port(port)
        }
    }
}

/// Whether the name means this machine (RFC 6761).
fn is_local(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

fn refused_http() -> String {
    "must be an https URL; an operator can allow http with --outbound-http, to networks of --outbound-allow".to_owned()
}

/// Whether web servers of others may listen at this port.
fn permits_port(port: u16) -> Result<(), String> {
    if let Some((_, service)) = PORTS_OF_OTHERS.iter().find(|(other, _)| *other == port) {
        return Err(format!("port {port} is that of {service}, not of HTTP"));
    }
    match port {
        80 | 443 | 1024.. => Ok(()),
        _ => Err(format!("port {port} must be 80, 443, or from 1024 on")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(networks: &[&str]) -> Vec<Network> {
        networks.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Holds that a guard accepts the first URLs and refuses the others with a text that has this in it.
    fn hold(guard: &Guard, accepted: &[&str], refused: &[(&str, &str)]) {
        for url in accepted {
            assert!(guard.check(url).is_ok(), "{url}: {:?}", guard.check(url));
        }
        for (url, rule) in refused {
            let refusal = guard.check(url).unwrap_err();
            assert!(refusal.contains(rule), "{url}: {refusal}");
        }
    }

    #[test]
    fn only_https_to_public_addresses_is_dialled() {
        hold(
            &Guard::default(),
            &[
                "https://login.example/jwks",
                "https://8.8.8.8/jwks",
                "https://[2606:4700::1]/",
                "https://a/@me",
            ],
            &[
                ("http://login.example/jwks", "--outbound-http"),
                ("http://8.8.8.8/", "--outbound-http"),
                ("http://localhost.example.com/", "--outbound-http"),
                ("ftp://a.example/", "https"),
                ("file:///etc/passwd", "https"),
                ("jwks.json", "https"),
                ("", "https"),
                ("https://me@a/", "no user"),
                ("https://me:secret@a/", "no user"),
                ("https://:secret@a/", "no user"),
                ("https://a/#b", "no fragment"),
                ("http://127.0.0.1:8080/jwks", "--outbound-allow"),
                ("https://localhost/", "--outbound-allow"),
                ("https://hook.localhost./", "--outbound-allow"),
                ("https://[::1]/jwks", "--outbound-allow"),
                ("https://10.0.0.1/jwks", "10.0.0.1 is not a public address"),
                ("https://0xa000001/jwks", "10.0.0.1"),
                ("https://0177.1/", "127.0.0.1"),
                ("https://100.64.0.1/", "--outbound-allow"),
                ("https://169.254.169.254/latest", "--outbound-allow"),
                ("https://224.0.0.1/", "--outbound-allow"),
                ("https://[fd00::1]/jwks", "--outbound-allow"),
                ("https://[fe80::1]/", "--outbound-allow"),
                ("https://[::ffff:10.0.0.1]/jwks", "--outbound-allow"),
                ("https://[64:ff9b::a00:1]/", "--outbound-allow"),
                ("https://[2002:a00:1::]/", "--outbound-allow"),
                ("https://0.0.0.0/", "--outbound-allow"),
            ],
        );
    }

    #[test]
    fn ports_are_those_of_web_servers() {
        let accepted = [
            "https://a.example/",
            "https://a.example:80/",
            "https://a.example:8443/",
            "https://8.8.8.8:3000/",
            "https://a.example:65535/",
        ];
        let refused = [
            ("https://a.example:0/", "from 1024 on"),
            ("https://a.example:22/", "port 22"),
            ("https://8.8.8.8:25/", "port 25"),
            ("https://a.example:6379/", "Redis"),
            ("https://8.8.8.8:27017/", "MongoDB"),
        ];
        hold(&Guard::default(), &accepted, &refused);
        // A name may turn out to be in the network that is allowed, where any port is.
        let guard = Guard::new(networks(&["10.0.0.0/8"]));
        hold(
            &guard,
            &["https://a.example:22/", "https://10.0.0.1:6379/"],
            &[("https://8.8.8.8:22/", "port 22")],
        );
        let url = Url::parse("https://a.example:22/").unwrap();
        let [public, inside] = ["8.8.8.8", "10.0.0.1"].map(|ip| ip.parse().unwrap());
        assert_eq!(guard.permitted(&url, &[public, inside]), Ok(vec![inside]));
        let refusal = guard.permitted(&url, &[public]).unwrap_err();
        assert!(refusal.contains("port 22"), "{refusal}");
    }

    #[test]
    fn a_name_is_dialled_at_public_addresses_only() {
        let guard = Guard::default();
        let [public, private, local]: [IpAddr; 3] =
            ["8.8.8.8", "10.0.0.1", "127.0.0.1"].map(|ip| ip.parse().unwrap());
        let url = Url::parse("https://a.example/").unwrap();
        let all = [private, public, local];
        assert_eq!(guard.permitted(&url, &all), Ok(vec![public]));
        let refusal = guard.permitted(&url, &[private, local]).unwrap_err();
        assert!(refusal.starts_with("10.0.0.1 is not a public address"));
        assert_eq!(guard.permitted(&url, &[]), Ok(Vec::new()));
    }

    #[test]
    fn loopback_is_plain_when_it_is_allowed() {
        let urls = [
            "http://127.0.0.1:8080/jwks",
            "http://[::1]/jwks",
            "http://localhost/jwks",
            "http://hook.localhost:3000/",
            "https://localhost:1/",
        ];
        let others = [
            ("http://a.example/", "--outbound-http"),
            ("http://10.0.0.1/", "--outbound-allow"),
        ];
        hold(&Guard::default().with_loopback(), &urls, &others);
        let one = Guard::new(networks(&["::1"]));
        hold(
            &one,
            &["http://[::1]/", "http://localhost/"],
            &[("http://127.0.0.1/", "--outbound-allow")],
        );
        // Such a name has an address elsewhere: not in the clear.
        let guard = Guard::default().with_loopback();
        let url = Url::parse("http://localhost/").unwrap();
        let public: IpAddr = "8.8.8.8".parse().unwrap();
        assert!(guard.permitted(&url, &[public]).is_err());
    }

    #[test]
    fn an_operator_allows_networks_and_then_http_to_them() {
        let guard = Guard::new(networks(&["10.0.0.0/8"]));
        let refused = [
            ("https://192.168.0.1/jwks", "--outbound-allow"),
            ("http://10.1.2.3/jwks", "--outbound-http"),
            ("http://a.example/", "--outbound-http"),
        ];
        hold(&guard, &["https://10.1.2.3/jwks"], &refused);
        let guard = guard.with_http();
        let accepted = ["http://10.1.2.3/jwks", "http://a.internal/"];
        hold(&guard, &accepted, &[("http://8.8.8.8/", "--outbound-http")]);
        let [inside, public]: [IpAddr; 2] = ["10.1.2.3", "8.8.8.8"].map(|ip| ip.parse().unwrap());
        let url = Url::parse("http://a.internal/").unwrap();
        assert_eq!(guard.permitted(&url, &[public, inside]), Ok(vec![inside]));
        assert!(guard.permitted(&url, &[public]).is_err(), "in the clear");
        hold(
            &Guard::default().with_http(),
            &[],
            &[("http://a.internal/", "--outbound-http")],
        );
    }
}
