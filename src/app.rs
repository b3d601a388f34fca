//! Wiring: what a node is made of, in the order it starts, and the reverse order in which it ends. Called by `main`; the
//! integration tests make their nodes with `assemble`. No rule lives here.

mod addresses;
mod health;
mod keys;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::blob::{Blob, Storage};
use crate::causes;
use crate::clock::Clock;
use crate::config::{self, Config, Mode};
use crate::embedded::{self, Embedded};
use crate::engine::{self, Engine};
use crate::http::{self, HttpSettings, RequestMetrics};
use crate::listen::{Listener, Routers};
use crate::outbound::{self, Guard, Outbound};
use crate::shutdown::Shutdown;
use crate::store::{self, Hosts, Store};
use crate::telemetry::{self, Telemetry};
use crate::worker;

pub use health::health;
pub use keys::{manage_keys, note_on_keys};

use addresses::Addresses;

/// Any error that keeps the node from running; `main` prints it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Time that the loops of the node get to end after the last response, even if less of the drain timeout is left.
const LOOPS_WITHIN: Duration = Duration::from_secs(5);
/// The part of it that is for loops which push needs.
const LOOPS_LAST: Duration = Duration::from_secs(1);
/// Time that the aborts of uploads and the database connections get to end, after everything else.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// Runs a node until shutdown is requested.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config) -> Result<(), Error> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let shutdown = Shutdown::default();
    shutdown.listen()?;
    // What is wrong with the address, the certificate or the limits is found before anything is made.
    let addresses = addresses::bind(&config)?;
    match start_embedded(&config, &shutdown).await {
        Ok(embedded) => {
            let served = serve(&config, embedded.as_ref(), addresses, &shutdown).await;
            if let Some(embedded) = embedded {
                embedded.stop().await;
            }
            served?;
        }
        Err(embedded::Error::Ending) => {}
        Err(error) => return Err(error.into()),
    }
    tracing::info!("stopped");
    Ok(())
}

/// Starts the private Postgres in embedded mode. If shutdown is requested meanwhile, it is stopped again; after a
/// second request the program does not wait for that.
async fn start_embedded(
    config: &Config,
    shutdown: &Shutdown,
) -> Result<Option<Embedded>, embedded::Error> {
    let Mode::Embedded {
        data_dir,
        postgres_bin,
    } = &config.mode
    else {
        return Ok(None);
    };
    let connections = database_connections(config);
    let bin = postgres_bin.as_deref();
    tokio::select! {
        started = Embedded::start(data_dir, bin, connections, &shutdown.token) => started.map(Some),
        () = shutdown.now.cancelled() => Err(embedded::Error::Ending),
    }
}

/// Connections to the database that the node makes at most.
fn database_connections(config: &Config) -> u32 {
    let tuning = &config.tuning;
    tuning.database_connections + tuning.turn_loops + Store::OWN_CONNECTIONS
}

/// Connects to the database and migrates its schema.
async fn open_store(config: &Config, embedded: Option<&Embedded>) -> Result<Store, Error> {
    let hosts: Hosts = match (&config.mode, embedded) {
        (Mode::Fleet { database_url, .. }, _) => database_url.expose().parse()?,
        (Mode::Embedded { .. }, Some(embedded)) => embedded.connect_options().into(),
        (Mode::Embedded { .. }, None) => return Err("the private Postgres does not run".into()),
    };
    let store = Store::new(hosts, config.tuning.database_connections);
    let ready = async {
        store.check_sessions().await?;
        store::migrate::migrate(&store).await
    };
    ready.await.map_err(|error| causes::in_line(&error))?;
    Ok(store)
}

async fn open_blob(config: &Config, objects_dir: Option<&Path>) -> Result<Blob, Error> {
    let storage = match (&config.mode, objects_dir) {
        (Mode::Fleet { objects, .. }, _) => objects.clone(),
        (Mode::Embedded { .. }, Some(directory)) => Storage::Directory(directory.to_owned()),
        (Mode::Embedded { .. }, None) => return Err("there is no directory for objects".into()),
    };
    let blob = Blob::open(storage.clone()).await?;
    // Small messages are served without it, so it is no reason to stop.
    if let Err(error) = blob.check().await {
        tracing::error!(
            "object storage {storage} cannot be used: {} ({})",
            error.cause(),
            error.remedy()
        );
    }
    Ok(blob)
}

/// The client of requests to the outside. A node on somebody's own machine may call services there.
fn outbound_of(
    config: &config::Outbound,
    is_embedded: bool,
    connections: usize,
) -> Result<Outbound, Error> {
    let mut guard = Guard::new(config.outbound_allow.clone());
    if is_embedded {
        guard = guard.with_loopback();
    }
    if config.outbound_http.is_some_and(config::Toggle::is_on) {
        guard = guard.with_http();
    }
    let file = config.outbound_ca.as_deref();
    let authorities = file.filter(|file| !file.as_os_str().is_empty());
    let authorities = authorities.map(outbound::authorities).transpose();
    let options = outbound::Options {
        guard,
        authorities: authorities
            .map_err(|error| format!("--outbound-ca: {error}"))?
            .unwrap_or_default(),
        connections,
        ..outbound::Options::default()
    };
    Ok(Outbound::new(options)?)
}

async fn serve(
    config: &Config,
    embedded: Option<&Embedded>,
    addresses: Addresses,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let opened = shutdown.unless_ending(Box::pin(async {
        let store = open_store(config, embedded).await?;
        let blob = open_blob(config, embedded.map(Embedded::objects_dir)).await?;
        Ok::<_, Error>((store, Arc::new(blob)))
    }));
    let Some(opened) = opened.await else {
        return Ok(());
    };
    let (store, blob) = opened?;
    let max_connections = addresses.max_connections();
    let connections = usize::try_from(addresses.outbound())?;
    // Before the loops and duties start: a node that cannot listen must not take a duty from the others.
    let (listener, operators) = addresses.listen()?;
    let parts = engine::Parts {
        store: store.clone(),
        blob: blob.clone(),
        outbound: outbound_of(&config.outbound, embedded.is_some(), connections)?,
        clock: Clock::default(),
        room: embedded.map(Embedded::room).unwrap_or_default(),
        open: embedded.is_some(),
        trusted_proxies: config.serving.trusted_proxies.clone(),
        cache_bytes: usize::try_from(config.tuning.cache_bytes.bytes())?,
        hot_limit_bytes: usize::try_from(config.tuning.hot_limit.bytes())?,
        turn_loops: usize::try_from(config.tuning.turn_loops)?,
    };
    // Cancelled after the last response: until then requests need turns.
    let stop = CancellationToken::new();
    let settings = Settings {
        duties: duty_settings(config),
        request_timeout: config.serving.request_timeout.duration(),
        max_connections,
    };
    let (engine, mut routers) = assemble(parts, settings, shutdown, &stop).await?;
    let mut apart = None;
    if let Some(listener) = operators {
        tracing::info!("metrics and documentation on {}", listener.address()?);
        let (of_clients, of_operators) = http::apart(routers);
        routers = of_clients;
        apart = Some(listener.serve(of_operators, shutdown));
    }
    announce(config, embedded, &listener)?;
    let asked = async {
        shutdown.token.cancelled().await;
        Instant::now()
    };
    let apart = OptionFuture::from(apart);
    let ((), _, asked) = tokio::join!(listener.serve(routers, shutdown), apart, asked);
    let drain_timeout = config.serving.drain_timeout.duration();
    let left = drain_timeout.saturating_sub(asked.elapsed());
    let (left, since) = (left.max(LOOPS_WITHIN), Instant::now());
    let pushed = shutdown.within(left - LOOPS_LAST, engine.end_push()).await;
    stop.cancel();
    let ended = shutdown.drain(left.saturating_sub(since.elapsed())).await;
    if !ended || pushed.is_none() {
        tracing::warn!("not all that was under way has ended");
    }
    let closed = async { tokio::join!(blob.drain(), store.close()) };
    if shutdown.within(CLOSED_WITHIN, closed).await.is_none() {
        tracing::warn!("did not wait for the last connections to close");
    }
    Ok(())
}

/// What a node is set to, apart from the parts of its engine.
#[derive(Debug)]
pub struct Settings {
    /// Of the background duties.
    pub duties: worker::Settings,
    /// How long a request may take unless its route says otherwise.
    pub request_timeout: Duration,
    /// Connections that the listener serves at the same time.
    pub max_connections: u32,
}

/// Makes a node of its parts, ready to serve: its loops and duties run on the tracker of `shutdown` until `stop`, and its
/// receivers stop waiting when `shutdown` begins.
///
/// # Errors
/// When the database does not answer.
pub async fn assemble(
    parts: engine::Parts,
    settings: Settings,
    shutdown: &Shutdown,
    stop: &CancellationToken,
) -> Result<(Engine, Routers), Error> {
    let (tracker, draining) = (&shutdown.tracker, shutdown.token.clone());
    let engine = Engine::start(parts, tracker, draining, stop.clone()).await?;
    let mut registry = telemetry::registry();
    engine.register_metrics(&mut registry);
    worker::start(&engine, settings.duties, &mut registry, (tracker, stop));
    let metrics = RequestMetrics::default();
    metrics.register(&mut registry);
    let http = HttpSettings {
        request_timeout: settings.request_timeout,
        max_connections: settings.max_connections,
        metrics,
        telemetry: Telemetry::of(registry),
    };
    let routers = http::routers(engine.clone(), http);
    Ok((engine, routers))
}

fn duty_settings(config: &Config) -> worker::Settings {
    let tuning = &config.tuning;
    let mut settings = worker::Settings::default();
    settings.rotate.slot_bytes = tuning.slot_bytes.bytes().cast_signed();
    settings.rotate.slot_window = tuning.slot_window.duration();
    settings.offload.object_bytes = tuning.object_bytes.bytes().cast_signed();
    settings.offload.hot_window = tuning.hot_window.duration();
    settings
}

/// Logs where the node listens and stores its data.
fn announce(
    config: &Config,
    embedded: Option<&Embedded>,
    listener: &Listener,
) -> Result<(), Error> {
    let address = listener.address()?;
    if let Some(embedded) = embedded {
        embedded.listening(address)?;
    }
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    match &config.mode {
        Mode::Embedded { data_dir, .. } => {
            tracing::info!(
                "listening on {scheme}://{address}, embedded mode, data in {}",
                data_dir.display()
            );
        }
        Mode::Fleet { objects, .. } => {
            tracing::info!("listening on {scheme}://{address}, fleet mode, objects in {objects}");
        }
    }
    Ok(())
}
