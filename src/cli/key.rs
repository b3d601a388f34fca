//! `cursus key` over HTTP, for operators. Without a service that is named, `app` does the same by the database: the first key
//! of an installation is made before there is one to send.

use api::TenantName;
use api::key::{ApiKeyWithSecret, PREFIX, parts};
use clap::ArgMatches;
use clap::parser::ValueSource;
use cursus_sdk::Request;
use hyper::Method;
use serde_json::json;

use super::output::{Column, note};
use super::{Common, Context, Failure};
use crate::config::{Connection, KeyCommand, Service};

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("NAME", "/name"),
    ("SCOPES", "/scopes"),
    ("CREATED", "/created_at"),
    ("EXPIRES", "/expires_at"),
    ("LAST USED", "/last_used_at"),
    ("REVOKED", "/revoked_at"),
];

/// A key as it may be shown; `None`: it is a token, of which no part is public.
pub(super) fn without_secret(key: &str) -> Option<String> {
    let (id, _) = parts(key)?;
    Some(format!("{PREFIX}{id}_…"))
}

fn connection(command: &KeyCommand) -> &Connection {
    match command {
        KeyCommand::Create(args) => &args.connection,
        KeyCommand::List(args) => &args.connection,
        KeyCommand::Revoke(args) => &args.connection,
    }
}

/// Whether it goes over HTTP: a service is named, and no flag names a database. `matches` are those of the command line.
pub(super) fn is_remote(command: &KeyCommand, matches: &ArgMatches) -> bool {
    let mut leaf = matches;
    while let Some((_, inner)) = leaf.subcommand() {
        leaf = inner;
    }
    let is_flag = |id| leaf.value_source(id) == Some(ValueSource::CommandLine);
    match connection(command).named_by() {
        Some(by) if by.starts_with("--") => true,
        by => by.is_some() && !is_flag("data_dir") && !is_flag("database_url"),
    }
}

pub(super) async fn run(command: KeyCommand, used: &mut Option<Service>) -> Result<(), Failure> {
    let common = Common {
        connection: connection(&command).clone(),
        json: false,
    };
    let context = Context::of(&common, used)?;
    let (client, output) = (&context.client, context.output);
    if let Some(by) = common
        .connection
        .named_by()
        .filter(|by| by.starts_with("CURSUS_"))
    {
        note(&format!(
            "over HTTP, at {}: {by} is set. Unset it to use the database",
            context.service.url
        ));
    }
    let path = |tenant: &TenantName| format!("/v1/admin/tenants/{tenant}/keys");
    match command {
        KeyCommand::Create(args) => {
            let request = Request::new(Method::POST, path(&args.tenant)).once();
            let made: ApiKeyWithSecret = client.json(request.json(&args.key_settings())?).await?;
            output.done(&made, &made.secret)
        }
        KeyCommand::List(args) => context.list(&path(&args.tenant), COLUMNS).await,
        KeyCommand::Revoke(args) => {
            let id = args.id;
            let path = format!("{}/{id}/revoke", path(&args.tenant));
            client.send(Request::new(Method::POST, path)).await?;
            output.done(&json!({"revoked": id}), &format!("key {id} is revoked"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_secret_or_a_token_is_shown() {
        let key = "cursus_0123456789abcdef_se_cr_et";
        assert_eq!(without_secret(key).unwrap(), "cursus_0123456789abcdef_…");
        assert_eq!(without_secret("eyJh_bGci.e_30.c2ln_bmF0"), None);
    }
}
