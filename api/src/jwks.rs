//! The public keys of a tenant on the wire: a JSON Web Key Set (RFC 7517) of Ed25519 keys (RFC 8037).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// Kind of key: `OKP`.
    #[schema(example = "OKP")]
    pub kty: String,
    /// Curve: `Ed25519`.
    #[schema(example = "Ed25519")]
    pub crv: String,
    /// The public key, in base64url without padding. As `whpk_` and standard base64 it is the key that libraries of
    /// Standard Webhooks take for signatures `v1a`.
    #[schema(pattern = "^[A-Za-z0-9_-]{43}$")]
    pub x: String,
    /// Names the key; the header of a token has it.
    pub kid: String,
    /// What the key is for: `sig`.
    #[serde(rename = "use")]
    #[schema(example = "sig")]
    pub use_for: String,
    /// Algorithm of signatures: `EdDSA`.
    #[schema(example = "EdDSA")]
    pub alg: String,
}

impl Jwk {
    /// An Ed25519 key that signs.
    #[must_use]
    pub fn ed25519(id: impl Into<String>, x: impl Into<String>) -> Self {
        Self {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: x.into(),
            kid: id.into(),
            use_for: "sig".to_owned(),
            alg: "EdDSA".to_owned(),
        }
    }
}

/// Public keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwks {
    /// The keys. Empty while nothing has been signed.
    pub keys: Vec<Jwk>,
}
