//! The guard of outbound requests: which URLs and addresses may be dialled. URLs are settings of operators, yet a
//! request is sent from inside the operator's network, where services trust their neighbours. So only public addresses
//! are dialled, and those that the operator allowed when the node was started. Loopback is allowed where the URL itself
//! says so: a name that turns out to be this machine is not. Pure.

use std::net::IpAddr;

use reqwest::Url;

use crate::network::{Network, is_public};

/// The one name that means this machine.
const LOCALHOST: &str = "localhost";

/// What is allowed apart from public addresses.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Vec<Network>,
}

impl Guard {
    /// A guard that also allows these networks.
    #[must_use]
    pub fn new(allowed: Vec<Network>) -> Self {
        Self { allowed }
    }

    /// Checks a URL, as far as that is possible without looking its name up.
    ///
    /// # Errors
    /// What the URL must be.
    pub fn check(&self, url: &str) -> Result<(), String> {
        const FORM: &str = "must be an https URL; http only on a loopback address";
        let url = Url::parse(url).map_err(|_| FORM.to_owned())?;
        let host = url.host_str().ok_or(FORM)?;
        let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let is_loopback = match ip {
            Some(ip) => ip.to_canonical().is_loopback(),
            None => host == LOCALHOST,
        };
        if !(url.scheme() == "https" || (url.scheme() == "http" && is_loopback)) {
            return Err(FORM.to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must have no user and no password".to_owned());
        }
        match ip {
            Some(ip) if !is_loopback && !self.permits(ip) => Err(refusal(ip)),
            Some(_) | None => Ok(()),
        }
    }

    /// The addresses of a name that may be dialled.
    ///
    /// # Errors
    /// When there are addresses, but none that may be dialled.
    pub fn of_name(&self, name: &str, found: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
        let is_local = name == LOCALHOST;
        let may =
            |ip: &&IpAddr| self.permits(**ip) || (is_local && ip.to_canonical().is_loopback());
        let permitted: Vec<IpAddr> = found.iter().filter(may).copied().collect();
        match found.first() {
            Some(first) if permitted.is_empty() => Err(refusal(*first)),
            _ => Ok(permitted),
        }
    }

    fn permits(&self, ip: IpAddr) -> bool {
        is_public(ip) || self.allowed.iter().any(|network| network.contains(ip))
    }
}

fn refusal(ip: IpAddr) -> String {
    format!("{ip} is not a public address; an operator can allow it with --outbound-allow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_dialled() {
        let guard = Guard::default();
        for url in [
            "https://login.example/jwks",
            "https://8.8.8.8/jwks",
            "http://127.0.0.1:8080/jwks",
            "http://[::1]/jwks",
            "http://localhost/jwks",
            "https://a/@me",
        ] {
            assert_eq!(guard.check(url), Ok(()), "{url}");
        }
        for url in [
            "http://login.example/jwks",
            "http://localhost.example.com/",
            "file:///etc/passwd",
            "jwks.json",
            "",
            "https://me@a/",
            "https://me:secret@a/",
            "https://:secret@a/",
            "http://me:secret@127.0.0.1/",
            "https://10.0.0.1/jwks",
            "https://0xa000001/jwks",
            "https://169.254.169.254/latest",
            "https://[fd00::1]/jwks",
            "https://[::ffff:10.0.0.1]/jwks",
            "https://0.0.0.0/",
        ] {
            assert!(guard.check(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_name_is_dialled_at_public_addresses_only() {
        let guard = Guard::default();
        let [public, private, local]: [IpAddr; 3] =
            ["8.8.8.8", "10.0.0.1", "127.0.0.1"].map(|ip| ip.parse().unwrap());
        let all = [private, public, local];
        assert_eq!(guard.of_name("a.example", &all), Ok(vec![public]));
        assert!(guard.of_name("a.example", &[private, local]).is_err());
        assert_eq!(guard.of_name("localhost", &[local]), Ok(vec![local]));
        assert_eq!(guard.of_name("a.example", &[]), Ok(Vec::new()));
    }

    #[test]
    fn an_operator_allows_networks() {
        let guard = Guard::new(vec!["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(guard.check("https://10.1.2.3/jwks"), Ok(()));
        assert!(guard.check("https://192.168.0.1/jwks").is_err());
        assert!(
            guard.check("http://10.1.2.3/jwks").is_err(),
            "not in the clear"
        );
        let inside: IpAddr = "10.1.2.3".parse().unwrap();
        assert_eq!(guard.of_name("a.example", &[inside]), Ok(vec![inside]));
    }
}
