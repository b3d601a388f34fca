//! The lock of the data directory: an exclusive lock on `cursus.lock`, which also describes its holder.
//! `Embedded::start` takes it first, and the kernel releases it when the process ends for any reason. So the holder may
//! assume that a Postgres running there was left by a killed node. The file is never removed: a lock on a removed file
//! would exclude no process.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::net::SocketAddr;
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Error;

const NAME: &str = "cursus.lock";

/// The lock; dropping it releases the directory.
#[derive(Debug)]
pub(super) struct Hold {
    file: File,
}

impl Hold {
    /// Takes the lock; the error describes its holder.
    pub(super) fn take(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::file("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Held {
                    data_dir: data_dir.to_owned(),
                    holder: holder(&path),
                });
            }
            Err(TryLockError::Error(err)) => return Err(Error::file("lock", &path)(err)),
        }
        let hold = Self { file };
        hold.note("-").map_err(Error::file("write", &path))?;
        Ok(hold)
    }

    /// Records the address that this process listens on, for the error of a second start.
    pub(super) fn listening(&self, address: SocketAddr) -> std::io::Result<()> {
        self.note(&address.to_string())
    }

    fn note(&self, listen: &str) -> std::io::Result<()> {
        let text = format!("pid={}\nlisten={listen}\n", std::process::id());
        let mut file = &self.file;
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    }
}

fn holder(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or("?")
    };
    // The holder writes the file only while it starts, so the file's time is its start time.
    let since = fs::metadata(path)
        .and_then(|meta| meta.modified())
        .ok()
        .and_then(|at| {
            OffsetDateTime::from(at)
                .replace_nanosecond(0)
                .ok()?
                .format(&Rfc3339)
                .ok()
        })
        .unwrap_or_else(|| "?".to_owned());
    format!(
        "process {} since {since}, listening on {}",
        field("pid"),
        field("listen")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_is_refused_with_the_holder() {
        let dir = std::env::temp_dir().join(format!("cursus-hold-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let first = Hold::take(&dir).unwrap();
        first.listening("127.0.0.1:8080".parse().unwrap()).unwrap();
        let message = Hold::take(&dir).unwrap_err().to_string();
        assert!(
            message.contains(&format!("process {} since 20", std::process::id())),
            "{message}"
        );
        assert!(message.contains("listening on 127.0.0.1:8080"), "{message}");
        drop(first);
        Hold::take(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
