//! A key set (JWKS, RFC 7517): the public keys of an issuer that can verify tokens. Pure functions.

use api::limits::{KEY_SET_KEYS_MAX, TOKEN_KEYS_TRIED_MAX};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::engine::access::jws;

/// A public key, and the one algorithm that it may verify.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The usable keys of a set.
#[derive(Debug, Clone, Default)]
pub(super) struct PublicKeys {
    keys: Vec<PublicKey>,
    /// Usable keys beyond the limit, which are not kept.
    pub(super) dropped: usize,
}

impl PublicKeys {
    /// The keys of a set; `None` when the text is not a key set. A key of an unknown kind is skipped, so that it does not
    /// make the other keys useless.
    pub(super) fn parse(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_str(text).ok()?;
        let mut keys: Vec<_> = set.keys.into_iter().filter_map(usable).collect();
        let dropped = keys.len().saturating_sub(KEY_SET_KEYS_MAX);
        keys.truncate(KEY_SET_KEYS_MAX);
        Some(Self { keys, dropped })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that may have signed a token with this header: those with its id, or else those without any id, which
    /// may be every key; for a token that names none, all keys of its algorithm. At most [`TOKEN_KEYS_TRIED_MAX`].
    pub(super) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<PublicKey> {
        let named = |key: &&PublicKey| id.is_none() || key.id.as_deref() == id;
        let nameless = |key: &&PublicKey| key.id.is_none();
        let fitting = || self.keys.iter().filter(|key| key.algorithm == algorithm);
        let take = |keys: &mut dyn Iterator<Item = &PublicKey>| -> Vec<PublicKey> {
            keys.take(TOKEN_KEYS_TRIED_MAX).cloned().collect()
        };
        let found = take(&mut fitting().filter(named));
        if found.is_empty() {
            return take(&mut fitting().filter(nameless));
        }
        found
    }

    /// Whether a token with this header names a key of the set exactly: no other key can have signed it.
    pub(super) fn names(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let mut keys = self.keys.iter();
        id.is_some() && keys.any(|key| key.algorithm == algorithm && key.id.as_deref() == id)
    }
}

/// A key of a set, if it can verify tokens.
fn usable(key: Value) -> Option<PublicKey> {
    use AlgorithmParameters::{EllipticCurve as Curve, OctetKeyPair as Edwards, RSA};
    // Read here, because the library knows fewer names of algorithms.
    let named = match key.get("alg") {
        None | Some(Value::Null) => None,
        Some(name) => Some(jws::algorithm(name.as_str()?)?),
    };
    let key: Jwk = serde_json::from_value(key).ok()?;
    // No other kinds. A symmetric key in particular is refused: any reader of the key set could sign tokens with it.
    let algorithm = if matches!(&key.algorithm, RSA(_)) {
        Algorithm::RS256
    } else if matches!(&key.algorithm, Curve(curve) if curve.curve == EllipticCurve::P256) {
        Algorithm::ES256
    } else if matches!(&key.algorithm, Edwards(curve) if curve.curve == EllipticCurve::Ed25519) {
        Algorithm::EdDSA
    } else {
        return None;
    };
    let common = &key.common;
    let is_for_algorithm = named.is_none_or(|named| named == algorithm);
    let is_signing = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let operations = common.key_operations.as_ref();
    let is_verifying = operations.is_none_or(|list| list.contains(&KeyOperations::Verify));
    (is_for_algorithm && is_signing && is_verifying).then_some(())?;
    Some(PublicKey {
        id: common.key_id.clone(),
        algorithm,
        key: DecodingKey::from_jwk(&key).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = r#""kty":"RSA","n":"AQAB","e":"AQAB""#;

    fn ids(keys: &[PublicKey]) -> Vec<&str> {
        keys.iter()
            .map(|key| key.id.as_deref().unwrap_or("-"))
            .collect()
    }

    #[test]
    fn a_set_gives_the_keys_that_can_check_signatures() {
        let set = format!(
            r#"{{"keys":[
                {{{RSA},"kid":"signing"}},
                {{{RSA},"kid":"other","alg":"RS512"}},
                {{{RSA},"kid":"encryption","use":"enc"}},
                {{{RSA},"kid":"encrypting","key_ops":["encrypt"]}},
                {{{RSA},"kid":"verifying","key_ops":["verify"]}},
                {{"kty":"oct","kid":"secret","k":"AAAA"}},
                {{"kty":"EC","crv":"P-384","kid":"curve","x":"AAAA","y":"AAAA"}},
                {{"kty":"new","kid":"unheard of"}},
                {{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"AAAA","use":"sig","alg":"EdDSA"}},
                {{"kty":"OKP","crv":"Ed25519","kid":"9864","x":"AAAA","alg":"Ed25519"}},
                {{"kty":"OKP","crv":"Ed25519","kid":"448","x":"AAAA","alg":"Ed448"}},
                7
            ]}}"#
        );
        let keys = PublicKeys::parse(&set).unwrap();
        assert_eq!(ids(&keys.keys), ["signing", "verifying", "ed", "9864"]);
        assert!(PublicKeys::parse("{}").is_none() && PublicKeys::parse("<html>").is_none());
    }

    #[test]
    fn a_key_without_an_id_may_be_the_one_that_a_token_names() {
        let set = format!(r#"{{"keys":[{{{RSA},"kid":"a"}},{{{RSA}}},{{{RSA},"kid":"b"}}]}}"#);
        let keys = PublicKeys::parse(&set).unwrap();
        for (id, expected) in [
            (Some("a"), vec!["a"]),
            (Some("unheard of"), vec!["-"]),
            (None, vec!["a", "-", "b"]),
        ] {
            assert_eq!(ids(&keys.candidates(Algorithm::RS256, id)), expected);
        }
        assert!(keys.candidates(Algorithm::ES256, None).is_empty());
        assert!(keys.names(Algorithm::RS256, Some("a")));
        assert!(!keys.names(Algorithm::RS256, Some("c")) && !keys.names(Algorithm::RS256, None));
    }

    #[test]
    fn a_set_and_the_keys_tried_with_a_token_are_bounded() {
        let key = format!("{{{RSA}}}");
        let list = vec![&*key; KEY_SET_KEYS_MAX + 3].join(",");
        let keys = PublicKeys::parse(&format!(r#"{{"keys":[{list}]}}"#)).unwrap();
        assert_eq!((keys.keys.len(), keys.dropped), (KEY_SET_KEYS_MAX, 3));
        let tried = keys.candidates(Algorithm::RS256, None);
        assert_eq!(tried.len(), TOKEN_KEYS_TRIED_MAX);
    }
}
