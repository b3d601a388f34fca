//! An authority of certificates that exists for one run of the tests, and the client of a node that trusts it.

use std::sync::{Arc, OnceLock};

use cursus::outbound::{Guard, Options, Outbound};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::default();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "the authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    })
}

/// Its certificate, PEM.
pub(crate) fn pem() -> String {
    authority().pem()
}

/// TLS of a server with these names, over these protocols.
pub(crate) fn server(names: &[&str], protocols: &[&str]) -> Arc<ServerConfig> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names).unwrap();
    let certificate = params.signed_by(&key, authority()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
    config.alpn_protocols = protocols.collect();
    Arc::new(config)
}

/// The client of a node in the tests: it calls loopback and trusts the authority.
pub(crate) fn outbound() -> Outbound {
    Outbound::new(options()).unwrap()
}

/// What it is made with.
pub(crate) fn options() -> Options {
    let authority: CertificateDer<'static> = authority().der().clone();
    Options {
        guard: Guard::default().with_loopback(),
        authorities: vec![authority],
        ..Options::default()
    }
}
