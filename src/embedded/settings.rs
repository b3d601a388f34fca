//! Settings of the private Postgres, given on its command line so that they hold for old clusters too.
//! Durability is never traded away here (I1). The file `postgresql.conf` stays as initdb made it.

/// Durable; said aloud because everything rests on it.
const DURABLE: [(&str, &str); 3] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
];

/// Payload rows are inserted and truncated: much log, few pages that live long. So checkpoints are rare and log segments
/// are kept for reuse.
const WORK: [(&str, &str); 13] = [
    ("shared_buffers", "128MB"),
    ("wal_buffers", "16MB"),
    ("max_wal_size", "4GB"),
    ("min_wal_size", "512MB"),
    ("checkpoint_timeout", "15min"),
    ("checkpoint_completion_target", "0.9"),
    ("huge_pages", "off"),
    ("jit", "off"),
    // No statement of the store gains from a second process, and each would need shared memory that containers lack.
    ("max_parallel_workers_per_gather", "0"),
    ("autovacuum_naptime", "10s"),
    ("autovacuum_vacuum_cost_delay", "1ms"),
    ("max_wal_senders", "0"),
    ("wal_level", "minimal"),
];

/// Nobody but the owner of the socket's directory gets in.
const ACCESS: [(&str, &str); 2] = [
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
];

/// A log of a week, a file a day, each written over after that week.
const LOG: [(&str, &str); 7] = [
    ("logging_collector", "on"),
    ("log_directory", "log"),
    ("log_filename", "postgres-%a.log"),
    ("log_rotation_age", "1d"),
    ("log_rotation_size", "0"),
    ("log_truncate_on_rotation", "on"),
    ("log_checkpoints", "off"),
];

/// Connections beside the node's own: for people with psql, and Postgres' own reserve.
const SPARE_CONNECTIONS: u32 = 16;

pub(super) fn arguments(connections: u32, lz4: bool) -> Vec<String> {
    let wal_compression = if lz4 { "lz4" } else { "off" };
    let max_connections = connections
        .saturating_add(SPARE_CONNECTIONS)
        .max(64)
        .to_string();
    let mut variable = vec![
        ("wal_compression", wal_compression),
        ("max_connections", max_connections.as_str()),
    ];
    if cfg!(target_os = "linux") {
        // After a crash: one call instead of an fsync for each of a thousand files.
        variable.push(("recovery_init_sync_method", "syncfs"));
    }
    let fixed = DURABLE.iter().chain(&WORK).chain(&ACCESS).chain(&LOG);
    fixed
        .chain(&variable)
        .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::arguments;

    #[test]
    fn there_are_connections_to_spare() {
        assert!(arguments(16, true).contains(&"max_connections=64".to_owned()));
        assert!(arguments(100, false).contains(&"max_connections=116".to_owned()));
    }
}
