//! TLS identity of the listener. It is read once at start, so a new certificate needs a restart. The crypto provider is
//! set explicitly, because two are linked in and rustls would not choose one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// A certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read as PEM.
    #[error("{flag} {}: {source}", path.display())]
    Pem {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// The file contains no certificate.
    #[error("--tls-cert {}: no certificate in it", .0.display())]
    Empty(PathBuf),
    /// Certificate and key do not match, or are of an unsupported kind.
    #[error("--tls-cert and --tls-key: {0}")]
    Identity(#[from] rustls::Error),
}

/// Reads certificate and key, and offers HTTP/2 and HTTP/1.1.
///
/// # Errors
///
/// When a file cannot be read, or certificate and key do not match.
pub fn identity(files: &TlsFiles) -> Result<Arc<ServerConfig>, Error> {
    let bad = |flag: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Pem { flag, path, source }
    };
    let certs: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(bad("--tls-cert", &files.cert))?;
    if certs.is_empty() {
        return Err(Error::Empty(files.cert.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(bad("--tls-key", &files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certs, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
