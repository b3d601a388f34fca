//! Settings of the private Postgres. They are passed on its command line, so that they apply to existing clusters too;
//! `postgresql.conf` stays as initdb wrote it. Durability is never traded for speed here (I1).

/// The defaults of Postgres, set explicitly because every guarantee depends on them.
const DURABLE: [(&str, &str); 3] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
];

/// Payload rows are inserted and truncated: this writes much WAL and few pages that live long. So checkpoints are rare,
/// and WAL segments are kept for reuse, as far as the disk allows (`wal_mib`).
const WORK: [(&str, &str); 11] = [
    ("shared_buffers", "128MB"),
    ("wal_buffers", "16MB"),
    ("checkpoint_timeout", "15min"),
    ("checkpoint_completion_target", "0.9"),
    ("huge_pages", "off"),
    ("jit", "off"),
    // No statement of the store benefits from a parallel worker, and each needs shared memory that containers lack.
    ("max_parallel_workers_per_gather", "0"),
    ("autovacuum_naptime", "10s"),
    ("autovacuum_vacuum_cost_delay", "1ms"),
    ("max_wal_senders", "0"),
    ("wal_level", "minimal"),
];

/// Only the owner of the socket's directory has access.
const ACCESS: [(&str, &str); 2] = [
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
];

/// One log file per weekday, overwritten a week later.
const LOG: [(&str, &str); 7] = [
    ("logging_collector", "on"),
    ("log_directory", "log"),
    ("log_filename", "postgres-%a.log"),
    ("log_rotation_age", "1d"),
    ("log_rotation_size", "0"),
    ("log_truncate_on_rotation", "on"),
    ("log_checkpoints", "off"),
];

/// Connections in addition to the node's own: for psql, and those that Postgres reserves.
const SPARE_CONNECTIONS: u32 = 16;

/// WAL to keep for reuse and WAL between two checkpoints, in MiB: on a small disk, an eighth of it.
fn wal_mib(disk_bytes: Option<u64>) -> (u64, u64) {
    let eighth = disk_bytes.map_or(u64::MAX, |bytes| bytes >> 23);
    let most = eighth.clamp(32, 4_096);
    ((most / 8).max(32), most)
}

pub(super) fn arguments(connections: u32, disk_bytes: Option<u64>, lz4: bool) -> Vec<String> {
    let (wal_min, wal_max) = wal_mib(disk_bytes);
    let (wal_min, wal_max) = (format!("{wal_min}MB"), format!("{wal_max}MB"));
    let wal_compression = if lz4 { "lz4" } else { "off" };
    let max_connections = connections
        .saturating_add(SPARE_CONNECTIONS)
        .max(64)
        .to_string();
    let mut variable = vec![
        ("wal_compression", wal_compression),
        ("min_wal_size", wal_min.as_str()),
        ("max_wal_size", wal_max.as_str()),
        ("max_connections", max_connections.as_str()),
    ];
    if cfg!(target_os = "linux") {
        // After a crash, one call replaces an fsync for each of a thousand files.
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
    use super::*;

    #[test]
    fn the_log_of_postgres_fits_its_disk() {
        assert_eq!(wal_mib(Some(300 << 20)), (32, 37));
        assert_eq!(wal_mib(Some(1 << 40)), (512, 4_096));
        assert_eq!(wal_mib(None), (512, 4_096));
    }

    #[test]
    fn there_are_connections_to_spare() {
        assert!(arguments(16, None, true).contains(&"max_connections=64".to_owned()));
        assert!(arguments(100, None, false).contains(&"max_connections=116".to_owned()));
    }
}
