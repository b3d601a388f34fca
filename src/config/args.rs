//! Flags and environment variables of the program, as clap reads them. Each flag has one environment variable and, if
//! it is a number, a range. A setting whose environment value clap hides is a secret; `show` relies on that mark.
//! `resolve` decides how settings combine.

use std::net::SocketAddr;
use std::path::PathBuf;

use api::key::KeySettings;
use api::{KeyId, Scope, TenantName};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

use super::connection::Connection;
use super::secret::Secret;
use super::units::{ByteSize, Period, within};
use crate::network::Network;

/// A serverless HTTP messaging service.
#[derive(Debug, Parser)]
#[command(name = "cursus", version, about)]
pub struct Cli {
    /// Subcommand to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: with a private Postgres in --data-dir, or as a node of a fleet when DATABASE_URL is set
    #[command(after_help = "Examples:\n  cursus serve\n  \
        DATABASE_URL=postgres://cursus:secret@db:5432/cursus S3_BUCKET=messages cursus serve --listen 0.0.0.0:8080")]
    Serve(Box<Settings>),
    /// Print every setting in force and where it came from
    #[command(after_help = "Example:\n  cursus config")]
    Config(Box<Settings>),
    /// Check that the node that runs here with the same settings is ready; for health checks of containers
    #[command(after_help = "Example:\n  cursus health")]
    Health(Box<Settings>),
    /// Manage API keys: over HTTP where --url, --profile, CURSUS_URL or CURSUS_PROFILE names a service, else (and with
    /// --data-dir or --database-url) by the database
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print the OpenAPI document
    #[command(after_help = "Example:\n  cursus openapi > openapi.json")]
    Openapi,
}

/// Subcommands of `cursus key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create an API key and print it, once
    #[command(
        after_help = "Examples:\n  cursus key create --tenant operators --scope admin\n  \
        cursus key create --profile prod --tenant shop --name web --scope publish:orders.* --expires-in 90d"
    )]
    Create(Box<KeyCreate>),
    /// List the API keys of a tenant, those that are revoked or expired included
    #[command(after_help = "Example:\n  cursus key list --tenant shop")]
    List(Box<KeyList>),
    /// Revoke an API key; all nodes refuse it within 2 seconds
    #[command(after_help = "Example:\n  cursus key revoke --tenant shop 5f0c7a1e9b3d2468")]
    Revoke(Box<KeyRevoke>),
}

/// Flags of `cursus key list`.
#[derive(Debug, Args)]
pub struct KeyList {
    /// Tenant whose keys are listed
    #[arg(long, env = "CURSUS_TENANT", default_value = "default")]
    pub tenant: TenantName,
    /// A service that does it, over HTTP, instead of the database
    #[command(flatten)]
    pub connection: Connection,
    /// Location of the database
    #[command(flatten)]
    pub settings: Settings,
}

/// Flags of `cursus key revoke`.
#[derive(Debug, Args)]
pub struct KeyRevoke {
    /// Id of the key, as `cursus key list` shows it; the 16 digits after `cursus_` in the key
    #[arg(value_name = "ID")]
    pub id: KeyId,
    /// Tenant that the key belongs to
    #[arg(long, env = "CURSUS_TENANT", default_value = "default")]
    pub tenant: TenantName,
    /// A service that does it, over HTTP, instead of the database
    #[command(flatten)]
    pub connection: Connection,
    /// Location of the database
    #[command(flatten)]
    pub settings: Settings,
}

/// Flags of `cursus key create`.
#[derive(Debug, Args)]
pub struct KeyCreate {
    /// Tenant that the key belongs to; created if it does not exist
    #[arg(long, env = "CURSUS_TENANT", default_value = "default")]
    pub tenant: TenantName,
    /// Name of the key, for people
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// Scope of the key: publish, receive, manage, usage or admin, for all names or for some (publish:orders.*). May be
    /// repeated. By default all but admin
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<Scope>,
    /// Time until the key expires; by default it does not
    #[arg(long, value_name = "TIME", value_parser = within(Period::seconds(1)..=Period::seconds(315_360_000)))]
    pub expires_in: Option<Period>,
    /// A service that does it, over HTTP, instead of the database
    #[command(flatten)]
    pub connection: Connection,
    /// Location of the database
    #[command(flatten)]
    pub settings: Settings,
}

impl KeyCreate {
    /// Settings of the key.
    #[must_use]
    pub fn key_settings(&self) -> KeySettings {
        let expires = self.expires_in.map(|life| life.duration().as_secs());
        KeySettings {
            name: self.name.clone(),
            scopes: (!self.scopes.is_empty()).then(|| self.scopes.clone()),
            expires_in_seconds: expires.and_then(|seconds| seconds.try_into().ok()),
        }
    }
}

/// All settings of a node.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Settings of the listener.
    #[command(flatten)]
    pub serving: Serving,
    /// Requests to others.
    #[command(flatten)]
    pub outbound: Outbound,
    /// Location of the data.
    #[command(flatten)]
    pub places: Places,
    /// Settings of the engine and its workers.
    #[command(flatten)]
    pub tuning: Tuning,
    /// Settings of the log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Settings of the listener.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Serving")]
pub struct Serving {
    /// Address to listen on
    #[arg(long, env = "CURSUS_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = address)]
    pub listen: SocketAddr,
    /// Address of /metrics, /docs and /openapi.json; by default they are at the address of --listen
    #[arg(long, env = "CURSUS_SERVICE_LISTEN", value_name = "ADDRESS:PORT", value_parser = address)]
    pub service_listen: Option<SocketAddr>,
    /// Networks of proxies that say in `Forwarded` (RFC 7239) from whom they pass a request on, separated by commas;
    /// wrong keys are counted for that client then, not for the proxy
    #[arg(
        long,
        env = "CURSUS_TRUSTED_PROXIES",
        value_name = "NETWORKS",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<Network>,
    /// Certificate chain (PEM); HTTP becomes HTTPS
    #[arg(long, env = "CURSUS_TLS_CERT", value_name = "FILE", value_parser = path())]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, env = "CURSUS_TLS_KEY", value_name = "FILE", value_parser = path())]
    pub tls_key: Option<PathBuf>,
    /// Time that requests in flight get to finish on shutdown
    #[arg(long, env = "CURSUS_DRAIN_TIMEOUT", value_name = "TIME", default_value = "30s",
        value_parser = within(Period::seconds(0)..=Period::seconds(600)))]
    pub drain_timeout: Period,
    /// Time limit of a request, in addition to the wait that it asks for
    #[arg(long, env = "CURSUS_REQUEST_TIMEOUT", value_name = "TIME", default_value = "30s",
        value_parser = within(Period::millis(100)..=Period::seconds(3600)))]
    pub request_timeout: Period,
    /// Time limit for the head of a request to arrive, and between two requests of a connection
    #[arg(long, env = "CURSUS_HEADER_TIMEOUT", value_name = "TIME", default_value = "75s",
        value_parser = within(Period::millis(100)..=Period::seconds(600)))]
    pub header_timeout: Period,
    /// Connections served at the same time, as far as the limit of open files allows; further ones get health checks and
    /// metrics only
    #[arg(long, env = "CURSUS_MAX_CONNECTIONS", value_name = "N", default_value = "16384",
        value_parser = within(1u32..=1_000_000))]
    pub max_connections: u32,
}

/// Requests to others: endpoints of push subscriptions, event sinks, key sets of issuers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Requests to endpoints, event sinks and key sets")]
pub struct Outbound {
    /// Networks that may be called although they are not public, at any port, separated by commas: 10.0.0.0/8,fd00::/8.
    /// Loopback (127.0.0.0/8,::1) is allowed in the embedded mode only, and then by plain http too
    #[arg(
        long,
        env = "CURSUS_OUTBOUND_ALLOW",
        value_name = "NETWORKS",
        value_delimiter = ','
    )]
    pub outbound_allow: Vec<Network>,
    /// Call the networks of --outbound-allow by plain http as well; all others by https only [possible: true, false]
    #[arg(long, env = "CURSUS_OUTBOUND_HTTP", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
        value_parser = optional_bool)]
    pub outbound_http: Option<Toggle>,
    /// Certificates of authorities (PEM) that are trusted as well as those of the system
    #[arg(long, env = "CURSUS_OUTBOUND_CA", value_name = "FILE", value_parser = path())]
    pub outbound_ca: Option<PathBuf>,
}

/// Location of the data.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
pub struct Places {
    /// Directory of the embedded mode: its Postgres cluster and its objects
    #[arg(
        long,
        env = "CURSUS_DATA_DIR",
        value_name = "DIR",
        default_value = "./cursus-data"
    )]
    pub data_dir: PathBuf,
    /// Directory of the Postgres server binaries, if they are not found automatically
    #[arg(long, env = "CURSUS_POSTGRES_BIN", value_name = "DIR", value_parser = path())]
    pub postgres_bin: Option<PathBuf>,
    /// Postgres of a fleet; without it the node starts a private one
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// File that holds the URL of the database, as secrets of Kubernetes and Compose do
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", value_parser = path())]
    pub database_url_file: Option<PathBuf>,
    /// Object storage of a fleet in one value: s3://bucket/prefix
    #[arg(long, env = "OBJECT_STORE", value_name = "URL")]
    pub object_store: Option<String>,
    /// Endpoint of the S3 service, unless it is AWS; may have a path
    #[arg(long, env = "S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Bucket for payloads
    #[arg(long, env = "S3_BUCKET", value_name = "NAME")]
    pub s3_bucket: Option<String>,
    /// Region of the bucket
    #[arg(long, env = "S3_REGION", value_name = "NAME")]
    pub s3_region: Option<String>,
    /// Access key; by default the credentials of the cloud are used
    #[arg(
        long,
        env = "S3_ACCESS_KEY_ID",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub s3_access_key_id: Option<Secret>,
    /// File that holds the access key
    #[arg(long, env = "S3_ACCESS_KEY_ID_FILE", value_name = "FILE", value_parser = path())]
    pub s3_access_key_id_file: Option<PathBuf>,
    /// Secret of the access key
    #[arg(
        long,
        env = "S3_SECRET_ACCESS_KEY",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub s3_secret_access_key: Option<Secret>,
    /// File that holds the secret of the access key
    #[arg(long, env = "S3_SECRET_ACCESS_KEY_FILE", value_name = "FILE", value_parser = path())]
    pub s3_secret_access_key_file: Option<PathBuf>,
    /// Put the bucket in the path rather than the host name; by default true with S3_ENDPOINT [possible: true, false]
    #[arg(long, env = "S3_FORCE_PATH_STYLE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
        value_parser = optional_bool)]
    pub s3_force_path_style: Option<Toggle>,
    /// Send a checksum of every body, which storage verifies; false for storage that refuses it [default: true]
    /// [possible: true, false]
    #[arg(long, env = "S3_CHECKSUMS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
        value_parser = optional_bool)]
    pub s3_checksums: Option<Toggle>,
}

/// Settings of the engine and its workers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tuning")]
pub struct Tuning {
    /// Memory for recently read or written blocks
    #[arg(long, env = "CURSUS_CACHE_BYTES", value_name = "SIZE", default_value = "64MiB",
        value_parser = within(ByteSize::mib(1)..=ByteSize::gib(64)))]
    pub cache_bytes: ByteSize,
    /// Largest body or batch that is stored in Postgres until it is offloaded; a larger one goes to object storage at
    /// once
    #[arg(long, env = "CURSUS_HOT_LIMIT", value_name = "SIZE", default_value = "256KiB",
        value_parser = within(ByteSize::kib(1)..=ByteSize::mib(4)))]
    pub hot_limit: ByteSize,
    /// Age at which a payload is packed into an object
    #[arg(long, env = "CURSUS_HOT_WINDOW", value_name = "TIME", default_value = "60s",
        value_parser = within(Period::millis(100)..=Period::seconds(3600)))]
    pub hot_window: Period,
    /// Size of the objects that payloads are packed into
    #[arg(long, env = "CURSUS_OBJECT_BYTES", value_name = "SIZE", default_value = "16MiB",
        value_parser = within(ByteSize::kib(64)..=ByteSize::mib(256)))]
    pub object_bytes: ByteSize,
    /// Size at which the table of hot payloads rotates
    #[arg(long, env = "CURSUS_SLOT_BYTES", value_name = "SIZE", default_value = "128MiB",
        value_parser = within(ByteSize::kib(64)..=ByteSize::gib(1)))]
    pub slot_bytes: ByteSize,
    /// Age at which the table of hot payloads rotates
    #[arg(long, env = "CURSUS_SLOT_WINDOW", value_name = "TIME", default_value = "60s",
        value_parser = within(Period::millis(100)..=Period::seconds(3600)))]
    pub slot_window: Period,
    /// Threads that serve requests; by default half of the cores, which leaves the others to Postgres and clients
    #[arg(long, env = "CURSUS_WORKER_THREADS", value_name = "N", default_value_t = cores_over(2),
        value_parser = within(1u32..=256))]
    pub worker_threads: u32,
    /// Commit loops; by default one per four cores
    #[arg(long, env = "CURSUS_TURN_LOOPS", value_name = "N", default_value_t = cores_over(4),
        value_parser = within(1u32..=64))]
    pub turn_loops: u32,
    /// Connections to Postgres
    #[arg(long, env = "CURSUS_DATABASE_CONNECTIONS", value_name = "N", default_value = "16",
        value_parser = within(4u32..=1000))]
    pub database_connections: u32,
}

/// Settings of the log.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct Logging {
    /// Format of the log
    #[arg(long, env = "CURSUS_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Level of the log: error, warn, info, debug, trace, or directives such as info,cursus=debug
    #[arg(long, env = "CURSUS_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = directives)]
    pub log_level: String,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A boolean that may be empty, which means unset: compose files pass empty variables on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toggle(pub(super) Option<bool>);

impl Toggle {
    /// Whether it is set to true.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.0 == Some(true)
    }
}

fn optional_bool(text: &str) -> Result<Toggle, &'static str> {
    match text {
        "" => Ok(Toggle(None)),
        "true" | "1" | "yes" | "on" => Ok(Toggle(Some(true))),
        "false" | "0" | "no" | "off" => Ok(Toggle(Some(false))),
        _ => Err("allowed are true and false"),
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(
        |_| "expected an IP address and a port (0 to 65535), such as 127.0.0.1:8080 or [::1]:8080",
    )
}

/// Parses the directives of the log. `tracing` takes a bare word that is no level for the name of a module, and logs
/// nothing else then.
fn directives(text: &str) -> Result<String, String> {
    const ALLOWED: &str =
        "allowed are error, warn, info, debug, trace, off, or directives such as info,cursus=debug";
    let is_level =
        |text: &str| text.trim().parse::<LevelFilter>().is_ok() && !text.trim().is_empty();
    for directive in text.split(',') {
        let level = directive
            .rsplit_once('=')
            .map_or(directive, |(_, level)| level);
        if !is_level(level) {
            return Err(format!("{level:?} is no level; {ALLOWED}"));
        }
    }
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|err| format!("{err}; {ALLOWED}"))
}

/// Parses a path that may be empty. clap's own parser refuses that, but compose files pass empty variables on.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The number of cores divided by `share`, at least 1.
fn cores_over(share: usize) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores / share).unwrap_or(1).clamp(1, 64)
}
