//! Whether this node can serve requests, for `GET /readyz`.

use std::time::Duration;

use api::service::ReadinessPart;

use crate::blob;
use crate::engine::Engine;
use crate::store::{self, Trouble};

/// A part that does not respond within this time is not ready.
const TIMEOUT: Duration = Duration::from_secs(2);
const STORAGE_SILENT: &str = "object storage does not answer";

/// A part of the service, and why it is not ready.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// The part.
    pub part: ReadinessPart,
    /// Why it is not ready; `None`: it is.
    pub missing: Option<String>,
}

impl Engine {
    /// The readiness of all parts. It tries what requests need: a write, and an object.
    pub async fn readiness(&self) -> Vec<Readiness> {
        let storage = tokio::time::timeout(TIMEOUT, self.blob().check());
        let (database, storage) = tokio::join!(self.database_trouble(), storage);
        let storage = storage.map_or_else(
            |_| Some(STORAGE_SILENT.to_owned()),
            |answer| answer.err().map(|error| of_storage(&error)),
        );
        let is_stopping = self.draining().is_cancelled();
        let part = |part, missing: Option<&str>| Readiness {
            part,
            missing: missing.map(ToOwned::to_owned),
        };
        vec![
            part(ReadinessPart::Database, database.map(Trouble::summary)),
            part(ReadinessPart::ObjectStorage, storage.as_deref()),
            part(
                ReadinessPart::Node,
                is_stopping.then_some("the node is stopping"),
            ),
        ]
    }

    /// What keeps the database from serving requests.
    async fn database_trouble(&self) -> Option<Trouble> {
        let written = tokio::time::timeout(TIMEOUT, async {
            let mut session = self.store().session().await?;
            store::node::touch(&mut session, self.node(), None).await
        });
        match written.await {
            Ok(Ok(())) => self.turns().health.trouble(),
            Ok(Err(error)) => Some(error.trouble()),
            // The pool waits longer for a connection.
            Err(_) => Some(self.store().trouble().unwrap_or(Trouble::NoAnswer)),
        }
    }
}

/// What is wrong with object storage, with its own code but without its words: this is shown to everyone.
fn of_storage(error: &blob::Error) -> String {
    match error.code() {
        Some(code) => format!("object storage refuses requests: {code}"),
        None => STORAGE_SILENT.to_owned(),
    }
}
