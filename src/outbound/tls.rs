//! TLS of outbound requests: certificates are verified against the system's authorities and those that the operator adds.
//! Offers HTTP/2 and HTTP/1.1. Says in plain words why a handshake failed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use super::error::Error;

/// Sessions that can be resumed.
const SESSIONS_MAX: usize = 1_024;

/// Reads the certificates of authorities from a PEM file.
///
/// # Errors
/// What is wrong with the file.
pub fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let found = CertificateDer::pem_file_iter(file);
    let found: Result<Vec<_>, _> = found.and_then(Iterator::collect);
    match found {
        Ok(found) if found.is_empty() => Err(wrong(&"no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(&error)),
    }
}

/// TLS of a client.
pub(super) struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Trusts the system's authorities and these.
    pub(super) fn new(authorities: &[CertificateDer<'static>]) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone())?;
        }
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            let text = "no certificate authorities were found on this system";
            return Err(rustls::Error::General(text.to_owned()));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        host: &Host<&str>,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let name = match host {
            Host::Domain(name) => ServerName::try_from((*name).to_owned())
                .map_err(|_| Error::Tls(format!("{name} cannot be the name of a certificate")))?,
            Host::Ipv4(ip) => ServerName::from(std::net::IpAddr::V4(*ip)),
            Host::Ipv6(ip) => ServerName::from(std::net::IpAddr::V6(*ip)),
        };
        let connected = self.0.connect(name, stream).await;
        connected.map_err(|error| Error::Tls(reason(&error, host)))
    }
}

/// Why a handshake failed.
fn reason(error: &io::Error, host: &Host<&str>) -> String {
    tracing::debug!(%error, %host, "a TLS handshake failed");
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(error) = inner else {
        return "the connection was closed in the handshake".to_owned();
    };
    if let rustls::Error::InvalidCertificate(error) = error {
        return of_certificate(error, host);
    }
    let text = if matches!(error, rustls::Error::InvalidMessage(_)) {
        "the endpoint does not speak TLS at this port"
    } else if matches!(error, rustls::Error::PeerIncompatible(_)) {
        "the endpoint offers neither TLS 1.2 nor TLS 1.3 with a safe cipher"
    } else if matches!(error, rustls::Error::AlertReceived(_)) {
        "the endpoint ended the handshake"
    } else {
        "the handshake failed"
    };
    text.to_owned()
}

fn of_certificate(error: &CertificateError, host: &Host<&str>) -> String {
    use CertificateError as Bad;
    if let Bad::NotValidForName | Bad::NotValidForNameContext { .. } = error {
        return format!("the certificate is not for {host}");
    }
    let text = if matches!(error, Bad::Expired | Bad::ExpiredContext { .. }) {
        "the certificate has expired"
    } else if matches!(error, Bad::NotValidYet | Bad::NotValidYetContext { .. }) {
        "the certificate is not valid yet"
    } else if matches!(error, Bad::UnknownIssuer) {
        "the certificate is signed by an unknown authority, or an intermediate certificate is missing"
    } else if matches!(error, Bad::Revoked) {
        "the certificate is revoked"
    } else {
        "the certificate is not valid"
    };
    text.to_owned()
}
