//! Issuers as this node knows them, with their public keys: read again now and then, at once when a token names a key that
//! is not among them (an issuer that rotates), and kept for a day when the issuer does not answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use serde::Deserialize;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::engine::access::Gate;
use crate::engine::error::Error;
use crate::store;
use crate::store::issuer::IssuerRow;

/// Age at which public keys are read again.
const READ_AGAIN: Duration = Duration::from_secs(300);
/// Not more often than this, whatever tokens say and however often it fails.
const READ_PAUSE: Duration = Duration::from_secs(5);
/// So long public keys are believed when their issuer does not answer.
const BELIEVED: time::Duration = time::Duration::hours(24);
/// Between two looks at what is due.
const ROUND: Duration = Duration::from_secs(1);
/// A set of public keys.
const JWKS_BYTES_MAX: usize = 256 << 10;
/// Public keys of one issuer.
const KEYS_MAX: usize = 100;

/// The issuers by the `iss` of their tokens.
#[derive(Debug, Default)]
pub(super) struct Issuers {
    by_iss: RwLock<HashMap<String, Arc<Issuer>>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) row: IssuerRow,
    keys: RwLock<Keys>,
    /// When it was last asked; held while it is.
    asked: tokio::sync::Mutex<Option<OffsetDateTime>>,
}

#[derive(Debug, Default)]
struct Keys {
    keys: Vec<PublicKey>,
    /// When they were read, by the database's clock.
    read_at: Option<OffsetDateTime>,
}

/// A public key, and what it may check.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    id: Option<String>,
    algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl Issuers {
    pub(super) fn get(&self, iss: &str) -> Option<Arc<Issuer>> {
        self.by_iss.read().get(iss).cloned()
    }

    /// These are all issuers. What this node has read of their keys stays.
    pub(super) fn replace(&self, rows: Vec<IssuerRow>) {
        let mut by_iss = self.by_iss.write();
        let before = std::mem::take(&mut *by_iss);
        for row in rows {
            let same = before.get(&row.issuer);
            let same = same.filter(|known| known.row.jwks_url == row.jwks_url);
            let issuer = Issuer::new(row, same.map(|known| &**known));
            by_iss.insert(issuer.row.issuer.clone(), Arc::new(issuer));
        }
    }

    fn all(&self) -> Vec<Arc<Issuer>> {
        self.by_iss.read().values().cloned().collect()
    }
}

impl Issuer {
    fn new(row: IssuerRow, before: Option<&Self>) -> Self {
        let keys = match before.map(|known| &known.keys) {
            Some(known) if known.read().read_at >= row.jwks_read_at => {
                let known = known.read();
                Keys {
                    keys: known.keys.clone(),
                    read_at: known.read_at,
                }
            }
            Some(_) | None => Keys {
                keys: row.jwks.as_deref().and_then(parse).unwrap_or_default(),
                read_at: row.jwks_read_at,
            },
        };
        Self {
            row,
            keys: RwLock::new(keys),
            asked: tokio::sync::Mutex::default(),
        }
    }

    fn is_due(&self, now: OffsetDateTime) -> bool {
        let read_at = self.keys.read().read_at;
        read_at.is_none_or(|at| now - at >= READ_AGAIN)
    }

    fn is_believed(&self, now: OffsetDateTime) -> bool {
        let read_at = self.keys.read().read_at;
        read_at.is_some_and(|at| now - at <= BELIEVED)
    }

    /// The keys that may have signed a token with this head: the one that it names, or all of its algorithm.
    fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<PublicKey> {
        let keys = self.keys.read();
        let fits = |key: &&PublicKey| {
            key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id)
        };
        keys.keys.iter().filter(fits).cloned().collect()
    }
}

impl Gate {
    /// The keys that may have signed a token of this issuer, read again when the one that it names is not known.
    pub(super) async fn public_keys(
        &self,
        issuer: &Issuer,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Vec<PublicKey>, Error> {
        let now = self.clock.estimate();
        if !issuer.is_believed(now) || issuer.candidates(algorithm, id).is_empty() {
            self.read_keys(issuer).await;
        }
        if !issuer.is_believed(now) {
            return Err(Error::Unavailable("the issuer of the token"));
        }
        Ok(issuer.candidates(algorithm, id))
    }

    /// Keeps the public keys of all issuers fresh until `stop`.
    pub async fn keep_issuers(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let now = self.clock.estimate();
            for issuer in self.issuers.all() {
                if issuer.is_due(now) && !stop.is_cancelled() {
                    self.read_keys(&issuer).await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Asks an issuer for its keys, unless that was done a moment ago. Whoever comes meanwhile waits for the same answer.
    async fn read_keys(&self, issuer: &Issuer) {
        let mut asked = issuer.asked.lock().await;
        let now = self.clock.estimate();
        if asked.is_some_and(|at| now - at < READ_PAUSE) {
            return;
        }
        let url = &issuer.row.jwks_url;
        let answer = self.outbound.get(url, JWKS_BYTES_MAX).await;
        *asked = Some(now);
        let text = answer.map(|body| String::from_utf8_lossy(&body).into_owned());
        let keys = text.as_deref().ok().and_then(parse);
        let (Ok(text), Some(keys)) = (&text, keys) else {
            let issuer = &issuer.row.name;
            let error = text.err().map(|error| error.to_string());
            tracing::warn!(
                issuer,
                error,
                "no public keys from the issuer; what was read before is used"
            );
            return;
        };
        let read_at = Some(self.clock.estimate());
        *issuer.keys.write() = Keys { keys, read_at };
        let noted = async {
            let mut session = self.store.session().await?;
            let row = (issuer.row.issuer_id, &*issuer.row.jwks_url);
            store::issuer::keys_read(&mut session, row, text, read_at).await
        };
        if let Err(error) = noted.await {
            tracing::debug!(%error, "public keys of an issuer are not noted for other nodes");
        }
    }
}

/// The keys of a set (RFC 7517) that Cursus can use; `None` when it is no set. A key that is not understood is passed over,
/// so that a new kind does not shut out the others.
fn parse(text: &str) -> Option<Vec<PublicKey>> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_str(text).ok()?;
    let keys = set.keys.into_iter().filter_map(|key| {
        let key: Jwk = serde_json::from_value(key).ok()?;
        usable(&key)
    });
    Some(keys.take(KEYS_MAX).collect())
}

fn usable(key: &Jwk) -> Option<PublicKey> {
    use AlgorithmParameters::{EllipticCurve as Curve, OctetKeyPair as Edwards, RSA};
    // Nothing else; also not a secret among public keys: whoever can read it could sign with it.
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
    let is_for_it = common
        .key_algorithm
        .is_none_or(|named| Algorithm::try_from(named).is_ok_and(|named| named == algorithm));
    let is_signing = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    (is_for_it && is_signing).then_some(())?;
    Some(PublicKey {
        id: common.key_id.clone(),
        algorithm,
        key: DecodingKey::from_jwk(key).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_the_keys_that_can_check_signatures() {
        let rsa = r#""kty":"RSA","n":"AQAB","e":"AQAB""#;
        let set = format!(
            r#"{{"keys":[
                {{{rsa},"kid":"signing"}},
                {{{rsa},"kid":"other","alg":"RS512"}},
                {{{rsa},"kid":"encryption","use":"enc"}},
                {{"kty":"oct","kid":"secret","k":"AAAA"}},
                {{"kty":"EC","crv":"P-384","kid":"curve","x":"AAAA","y":"AAAA"}},
                {{"kty":"new","kid":"unheard of"}},
                {{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"AAAA","use":"sig","alg":"EdDSA"}},
                7
            ]}}"#
        );
        let keys = parse(&set).unwrap();
        let ids: Vec<_> = keys.iter().map(|key| key.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["signing", "ed"]);
        assert!(parse("{}").is_none() && parse("<html>").is_none());
    }
}
