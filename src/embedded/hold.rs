//! Who holds the data directory: an exclusive lock on `cursus.lock`, in which the holder notes itself.
//! Taken first by `Embedded::start` and kept until the process ends, however it ends; so whoever holds it may take any
//! Postgres that still runs there for an orphan. The file is never removed: a lock on a removed file excludes nobody.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::net::SocketAddr;
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Error;

const NAME: &str = "cursus.lock";

/// The lock; dropping it lets go.
#[derive(Debug)]
pub(super) struct Hold {
    file: File,
}

impl Hold {
    /// Takes the directory, or says who has it.
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

    /// Notes the address that this process listens on, for the message to a second start.
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
    // The holder writes the file as it starts and never again, so the file's time is the holder's.
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
    fn a_second_taker_is_told_who_holds_it() {
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
