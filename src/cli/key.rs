//! `cursus key` over HTTP, for operators. Without a service that is named, `app` does the same by the database: the first key
//! of an installation is made before there is one to send.

use api::TenantName;
use api::key::ApiKeyWithSecret;
use clap::ArgMatches;
use clap::parser::ValueSource;
use cursus_sdk::Request;
use futures_util::TryStreamExt;
use hyper::Method;
use serde_json::{Value, json};

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
    let Context {
        client,
        output,
        service,
    } = Context::of(&common, used)?;
    if let Some(by) = common
        .connection
        .named_by()
        .filter(|by| by.starts_with("CURSUS_"))
    {
        note(&format!(
            "over HTTP, at {}: {by} is set. Unset it to use the database",
            service.url
        ));
    }
    let path = |tenant: &TenantName| format!("/v1/admin/tenants/{tenant}/keys");
    match command {
        KeyCommand::Create(args) => {
            let request = Request::new(Method::POST, path(&args.tenant)).once();
            let made: ApiKeyWithSecret = client.json(request.json(&args.key_settings())?).await?;
            output.done(&made, &made.secret)
        }
        KeyCommand::List(args) => {
            let list = client.each(&(path(&args.tenant) + "?limit=1000"));
            let keys: Vec<Value> = list.try_collect().await?;
            output.list(&keys, COLUMNS)
        }
        KeyCommand::Revoke(args) => {
            let id = args.id;
            let path = format!("{}/{id}/revoke", path(&args.tenant));
            client.send(Request::new(Method::POST, path)).await?;
            output.done(&json!({"revoked": id}), &format!("key {id} is revoked"))
        }
    }
}
