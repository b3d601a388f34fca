//! The token issuers and their public keys (JWKS), as this node knows them. A background loop fetches the keys of each
//! issuer again every few minutes. A token that names an unknown key triggers a fetch at once, because the issuer may
//! have rotated its keys. When an issuer does not respond, its last keys stay valid for a day.

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
use crate::repeat::every;
use crate::store;
use crate::store::issuer::IssuerRow;

/// Age at which public keys are fetched again.
const FETCH_AGE: Duration = Duration::from_secs(300);
/// Shortest time between two fetches from one issuer, also when tokens name unknown keys or fetches fail.
const FETCH_PAUSE: Duration = Duration::from_secs(5);
/// Age up to which public keys are trusted while their issuer does not respond.
const TRUSTED: time::Duration = time::Duration::hours(24);
/// Pause between two scans for issuers that are due.
const SCAN_PAUSE: Duration = Duration::from_secs(1);
/// Largest key set that is accepted, in bytes.
const JWKS_BYTES_MAX: usize = 256 << 10;
/// Most public keys kept of one issuer.
const KEYS_MAX: usize = 100;

/// All issuers, by the `iss` claim of their tokens.
#[derive(Debug, Default)]
pub(super) struct Issuers {
    by_iss: RwLock<HashMap<String, Arc<Issuer>>>,
}

/// An issuer and its public keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) row: IssuerRow,
    keys: RwLock<Keys>,
    /// When its keys were last requested. Locked during a request, so that only one runs.
    requested_at: tokio::sync::Mutex<Option<OffsetDateTime>>,
}

#[derive(Debug, Default)]
struct Keys {
    keys: Vec<PublicKey>,
    /// When they were fetched, by the database's clock.
    read_at: Option<OffsetDateTime>,
}

/// A public key, and the one algorithm that it may verify.
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

    /// Replaces the list of issuers by `rows`. An issuer whose `jwks_url` is unchanged keeps the keys that this node
    /// fetched.
    pub(super) fn replace(&self, rows: Vec<IssuerRow>) {
        let mut by_iss = self.by_iss.write();
        let before = std::mem::take(&mut *by_iss);
        for row in rows {
            let same = before
                .get(&row.issuer)
                .filter(|old| old.row.jwks_url == row.jwks_url);
            let issuer = Issuer::new(row, same.map(|old| &**old));
            by_iss.insert(issuer.row.issuer.clone(), Arc::new(issuer));
        }
    }

    fn all(&self) -> Vec<Arc<Issuer>> {
        self.by_iss.read().values().cloned().collect()
    }
}

impl Issuer {
    fn new(row: IssuerRow, before: Option<&Self>) -> Self {
        let keys = match before.map(|old| old.keys.read()) {
            Some(old) if old.read_at >= row.jwks_read_at => Keys {
                keys: old.keys.clone(),
                read_at: old.read_at,
            },
            Some(_) | None => Keys {
                keys: row.jwks.as_deref().and_then(parse).unwrap_or_default(),
                read_at: row.jwks_read_at,
            },
        };
        Self {
            row,
            keys: RwLock::new(keys),
            requested_at: tokio::sync::Mutex::default(),
        }
    }

    fn is_due(&self, now: OffsetDateTime) -> bool {
        let read_at = self.keys.read().read_at;
        read_at.is_none_or(|at| now - at >= FETCH_AGE)
    }

    fn is_trusted(&self, now: OffsetDateTime) -> bool {
        let read_at = self.keys.read().read_at;
        read_at.is_some_and(|at| now - at <= TRUSTED)
    }

    /// The keys that may have signed a token with this header: the key with this id, or, without an id, all keys of the
    /// algorithm.
    fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<PublicKey> {
        let keys = self.keys.read();
        let fits = |key: &&PublicKey| {
            key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id)
        };
        keys.keys.iter().filter(fits).cloned().collect()
    }
}

impl Gate {
    /// The keys that may have signed a token of this issuer. Fetches the keys again when none matches.
    pub(super) async fn public_keys(
        &self,
        issuer: &Issuer,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Vec<PublicKey>, Error> {
        let now = self.clock.estimate();
        if !issuer.is_trusted(now) || issuer.candidates(algorithm, id).is_empty() {
            self.fetch_keys(issuer).await;
        }
        if !issuer.is_trusted(now) {
            return Err(Error::Unavailable("the issuer of the token"));
        }
        Ok(issuer.candidates(algorithm, id))
    }

    /// Fetches the public keys of all issuers again when they are due, until `stop`.
    pub async fn keep_issuers(&self, stop: CancellationToken) {
        let mut rounds = every(SCAN_PAUSE, &stop);
        while rounds.next().await {
            let now = self.clock.estimate();
            for issuer in self.issuers.all() {
                if issuer.is_due(now) && !stop.is_cancelled() {
                    self.fetch_keys(&issuer).await;
                }
            }
        }
    }

    /// Fetches the keys of an issuer, unless that was tried less than [`FETCH_PAUSE`] ago. Concurrent calls wait for
    /// the running request and use its result.
    async fn fetch_keys(&self, issuer: &Issuer) {
        let mut requested_at = issuer.requested_at.lock().await;
        let now = self.clock.estimate();
        if requested_at.is_some_and(|at| now - at < FETCH_PAUSE) {
            return;
        }
        let url = &issuer.row.jwks_url;
        let response = self.outbound.get(url, JWKS_BYTES_MAX).await;
        *requested_at = Some(now);
        let text = response.map(|body| String::from_utf8_lossy(&body).into_owned());
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
        let saved = async {
            let mut session = self.store.session().await?;
            let (id, url) = (issuer.row.issuer_id, &issuer.row.jwks_url);
            store::issuer::keys_read(&mut session, id, url, text, read_at).await
        };
        if let Err(error) = saved.await {
            tracing::debug!(%error, "public keys of an issuer could not be stored for other nodes");
        }
    }
}

/// The keys of a key set (RFC 7517) that Cursus can use; `None` when the text is not a key set. A key of an unknown
/// kind is skipped, so that it does not make the other keys useless.
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
    let is_for_algorithm = common
        .key_algorithm
        .is_none_or(|named| Algorithm::try_from(named).is_ok_and(|named| named == algorithm));
    let is_signing = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    (is_for_algorithm && is_signing).then_some(())?;
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
