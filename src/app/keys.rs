//! `cursus key`: creates, lists and revokes API keys without a node, by the database itself. Called by `main`, which prints
//! the text that is returned.

use std::fmt::Write;

use api::TenantName;
use api::key::ApiKey;

use super::{Error, open_store, start_embedded};
use crate::config::{Config, KeyTask, Mode};
use crate::engine::operate::keys;
use crate::shutdown::Shutdown;
use crate::store::Store;

/// What to know about keys of this installation, if it is not obvious.
#[must_use]
pub fn note_on_keys(config: &Config, task: &KeyTask) -> Option<String> {
    let Mode::Embedded { data_dir, .. } = &config.mode else {
        return None;
    };
    matches!(task, KeyTask::Create(_)).then(|| {
        format!(
            "the embedded mode lets requests in without a key. This key is for clients that send one, or that belong to \
             another tenant; it works with the data in {} alone. For a key of a fleet set DATABASE_URL and S3_BUCKET",
            data_dir.display()
        )
    })
}

/// Does something with the keys of a tenant, and returns what to print.
///
/// # Errors
/// When the tenant or key does not exist, the database does not respond, or shutdown was requested before.
pub async fn manage_keys(
    config: Config,
    tenant: &TenantName,
    task: &KeyTask,
) -> Result<String, Error> {
    let shutdown = Shutdown::default();
    shutdown.listen()?;
    let embedded = start_embedded(&config, &shutdown).await?;
    let done = shutdown.unless_ending(async {
        let store = open_store(&config, embedded.as_ref()).await?;
        run(&store, tenant, task).await
    });
    let done: Option<Result<String, Error>> = done.await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    done.unwrap_or_else(|| Err("asked to end before it was done".into()))
}

async fn run(store: &Store, tenant: &TenantName, task: &KeyTask) -> Result<String, Error> {
    Ok(match task {
        KeyTask::Create(settings) => keys::create_key(store, tenant, settings).await?.secret,
        KeyTask::List => table(&keys::all_keys(store, tenant).await?),
        KeyTask::Revoke(id) => {
            keys::revoke_key(store, tenant, *id).await?;
            format!("key {id} is revoked")
        }
    })
}

/// The keys as lines of tab-separated fields, for people and for `cut`.
fn table(keys: &[ApiKey]) -> String {
    let mut table = "ID\tNAME\tSCOPES\tCREATED\tEXPIRES\tLAST USED\tREVOKED".to_owned();
    for key in keys {
        let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
        let time = |at: &Option<api::Timestamp>| at.map_or("-".to_owned(), |at| at.to_string());
        // Writing to a string cannot fail.
        let _ = write!(
            table,
            "\n{}\t{}\t{}\t{}\t{}\t{}\t{}",
            key.id,
            key.name.replace('\t', " "),
            scopes.join(","),
            key.created_at,
            time(&key.expires_at),
            time(&key.last_used_at),
            time(&key.revoked_at),
        );
    }
    table
}
