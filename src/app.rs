//! Wiring: what a node is made of, in the order it starts, and the reverse order in which it ends. Called by `main`.
//! No rule lives here.

use axum::Router;
use axum::routing::get;

use crate::config::{Config, Mode};
use crate::embedded::Embedded;
use crate::listen::{self, tls};
use crate::shutdown::Shutdown;

/// Whatever keeps the node from running; `main` prints it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs a node until it is told to end.
///
/// # Errors
///
/// When it cannot start.
pub async fn run(config: Config) -> Result<(), Error> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let shutdown = Shutdown::default();
    shutdown.listen()?;
    let embedded = match &config.mode {
        Mode::Embedded {
            data_dir,
            postgres_bin,
        } => {
            let connections = config.tuning.database_connections;
            Some(Embedded::start(data_dir, postgres_bin.as_deref(), connections).await?)
        }
        Mode::Fleet { .. } => None,
    };
    let served = serve(&config, embedded.as_ref(), &shutdown).await;
    shutdown
        .drain(config.serving.drain_timeout.duration())
        .await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    tracing::info!("stopped");
    served
}

async fn serve(
    config: &Config,
    embedded: Option<&Embedded>,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let router = Router::new().route("/healthz", get(async || "ok\n"));
    let address = config.serving.listen;
    let listener = listen::bind(listen::Options {
        address,
        max_connections: config.serving.max_connections,
        header_timeout: config.serving.header_timeout.duration(),
        drain_timeout: config.serving.drain_timeout.duration(),
        tls: config.tls.as_ref().map(tls::identity).transpose()?,
    })
    .map_err(|err| format!("cannot listen on {address}: {err} (choose another with --listen)"))?;
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
            tracing::info!(
                "listening on {scheme}://{address}, fleet mode, objects in s3://{}",
                objects.bucket
            );
        }
    }
    listener.serve(router, shutdown).await;
    Ok(())
}
