//! The compact form of a signed token (JWS, RFC 7515; its payload is a JWT, RFC 7519): what its header says, and its
//! claims. Pure functions: `token` decides whose keys verify it and what the claims permit.
//!
//! The header does not choose how a token is verified: each key verifies one algorithm only, keys in the header (`jwk`,
//! `jku`, `x5c`, `x5u`) are ignored, and neither HMAC nor `none` is known here.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::engine::access::key_set::PublicKey;

/// Whether a bearer value has the form of a token: three parts separated by dots. An API key contains no dot.
pub(super) fn is_token(bearer: &str) -> bool {
    bearer.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// A token whose signature is not verified yet.
#[derive(Debug)]
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    /// The key that signed it, when it says so.
    pub(super) key_id: Option<String>,
    /// Its claims: not to be trusted before [`Jws::is_signed_by`].
    pub(super) claims: Map<String, Value>,
    /// What is signed: the first two parts as they were sent.
    message: &'a str,
    signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Reads a token; `None` when it is not one that this service may accept.
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header = object(header)?;
        // An extension that must be understood, and this service understands none. Every other form of this member is
        // an error (section 4.1.11).
        if header.contains_key("crit") || !is_of_this_kind(&header)? {
            return None;
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return None,
        };
        Some(Self {
            algorithm: algorithm(header.get("alg")?.as_str()?)?,
            key_id,
            claims: object(payload)?,
            message,
            signature,
        })
    }

    /// Whether one of these keys signed it.
    pub(super) fn is_signed_by(&self, keys: &[PublicKey]) -> bool {
        keys.iter().any(|key| {
            let verified = jsonwebtoken::crypto::verify(
                self.signature,
                self.message.as_bytes(),
                &key.key,
                self.algorithm,
            );
            key.algorithm == self.algorithm && verified.unwrap_or(false)
        })
    }
}

/// The algorithm of a name in a header or a public key. `Ed25519` is the name that RFC 9864 gives to `EdDSA` on that
/// curve.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// Whether the token is for access, as far as its `typ` says: a token that says to be of another kind, such as
/// `logout+jwt`, must not be taken for one (RFC 8725, section 3.11). `None`: the member is no text.
fn is_of_this_kind(header: &Map<String, Value>) -> Option<bool> {
    let Some(kind) = header.get("typ") else {
        return Some(true);
    };
    let kind = kind.as_str()?.to_ascii_lowercase();
    Some(!kind.ends_with("+jwt") || kind.ends_with("at+jwt"))
}

/// The JSON object in one part of a token.
fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes)
        .ok()
        .map(|Members(members)| members)
}

/// The members of a JSON object, none of them twice: two readers of one token must not see different values
/// (RFC 7515, section 4; RFC 7519, section 4).
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member stands twice"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.AAAA", part(header), part(claims))
    }

    #[test]
    fn a_header_names_an_algorithm_and_perhaps_a_key() {
        for (header, algorithm, id) in [
            (r#"{"alg":"RS256"}"#, Algorithm::RS256, None),
            (r#"{"alg":"EdDSA","kid":"k"}"#, Algorithm::EdDSA, Some("k")),
            (r#"{"alg":"Ed25519","typ":"JWT"}"#, Algorithm::EdDSA, None),
            (
                r#"{"alg":"ES256","typ":"application/at+jwt"}"#,
                Algorithm::ES256,
                None,
            ),
            (
                r#"{"alg":"ES256","typ":"AT+JWT","x":1}"#,
                Algorithm::ES256,
                None,
            ),
        ] {
            let text = token(header, r#"{"iss":"i"}"#);
            let jws = Jws::parse(&text).unwrap();
            assert_eq!((jws.algorithm, jws.key_id.as_deref()), (algorithm, id));
            assert_eq!(jws.claims["iss"], "i");
        }
    }

    #[test]
    fn what_the_header_must_not_say_is_refused() {
        for header in [
            r#"{}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"Ed448"}"#,
            r#"{"alg":"rs256"}"#,
            r#"{"alg":7}"#,
            r#"{"alg":"RS256","alg":"RS256"}"#,
            r#"{"alg":"RS256","kid":7}"#,
            r#"{"alg":"RS256","kid":null}"#,
            r#"{"alg":"RS256","typ":7}"#,
            r#"{"alg":"RS256","typ":"logout+jwt"}"#,
            r#"{"alg":"RS256","typ":"application/dpop+jwt"}"#,
            r#"{"alg":"RS256","crit":["exp"]}"#,
            r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"RS256","crit":[]}"#,
            r#"{"alg":"RS256","crit":null}"#,
            r#"["alg"]"#,
        ] {
            assert!(Jws::parse(&token(header, "{}")).is_none(), "{header}");
        }
    }

    #[test]
    fn the_parts_are_exactly_what_they_must_be() {
        let good = token(r#"{"alg":"RS256"}"#, "{}");
        assert!(Jws::parse(&good).is_some());
        let (head, rest) = good.split_once('.').unwrap();
        for wrong in [
            format!("{head}=.{rest}"),
            format!("{head} .{rest}"),
            format!("{head}.{rest}.AAAA"),
            format!("{head}..AAAA"),
            token(r#"{"alg":"RS256"}"#, r#"{"exp":1,"exp":2}"#),
            token(r#"{"alg":"RS256"}"#, "7"),
            String::new(),
        ] {
            assert!(Jws::parse(&wrong).is_none(), "{wrong}");
        }
        assert!(is_token("a.b.c") && !is_token("cursus_0_1") && !is_token("a.b.c.d.e"));
    }
}
