//! Whether this node can serve requests, for `GET /readyz`.

use std::time::Duration;

use crate::engine::Engine;
use crate::store;

/// A part that does not respond within this time is not ready.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A part of the service, and why it is not ready.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// `database`, `object_storage` or `node`.
    pub part: &'static str,
    /// Why it is not ready; `None`: it is.
    pub missing: Option<String>,
}

impl Engine {
    /// The readiness of all parts.
    pub async fn readiness(&self) -> Vec<Readiness> {
        let database = tokio::time::timeout(TIMEOUT, async {
            let mut session = self.store().session().await?;
            store::installation::catalog_version(&mut session).await
        });
        let storage = tokio::time::timeout(TIMEOUT, self.blob().check());
        let (database, storage) = tokio::join!(database, storage);
        let missing =
            |answered: bool, what: &str| (!answered).then(|| format!("{what} does not answer"));
        let node = self
            .draining()
            .is_cancelled()
            .then(|| "the node is stopping".to_owned());
        vec![
            Readiness {
                part: "database",
                missing: missing(matches!(database, Ok(Ok(_))), "the database"),
            },
            Readiness {
                part: "object_storage",
                missing: missing(matches!(storage, Ok(Ok(()))), "object storage"),
            },
            Readiness {
                part: "node",
                missing: node,
            },
        ]
    }
}
