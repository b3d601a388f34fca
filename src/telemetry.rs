//! The log: lines for people or JSON for machines, on standard error. `main` calls `init` once, before anything is logged.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogFormat, Logging};

/// Starts logging.
pub fn init(logging: &Logging) {
    let filter = EnvFilter::new(&logging.log_level);
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only when a subscriber is set already, which then logs.
    let _ = match logging.log_format {
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
