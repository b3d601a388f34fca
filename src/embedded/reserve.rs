//! Watches the disk of the data directory. Publishes stop while little is free ([`Room`]). For a disk that something else
//! fills, or that is full at the start, a file keeps room in reserve: it is removed when Postgres could not go on
//! without, and made again when there is room.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::disk::{Room, Space};

const NAME: &str = "reserve";
/// Largest reserve; a small disk has a smaller one.
const BYTES_MAX: u64 = 256 << 20;
const BYTES_MIN: u64 = 24 << 20;
/// How fast the fastest disk fills, in bytes per second: decides how long the watch may look away.
const FILLS_BY: u64 = 1 << 30;
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The reserve and the watch of one data directory.
#[derive(Clone, Debug)]
pub(super) struct Reserve {
    data_dir: PathBuf,
    room: Room,
}

impl Reserve {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            room: Room::default(),
        }
    }

    pub(super) fn room(&self) -> Room {
        self.room.clone()
    }

    /// Bytes of the disk, which bound what Postgres keeps of its log.
    pub(super) fn disk_bytes(&self) -> Option<u64> {
        Space::of(&self.data_dir).ok().map(|space| space.total)
    }

    /// Looks at the disk once: stops publishes or lets them go on, and uses or makes the reserve. Returns when to look
    /// again.
    pub(super) fn look(&self) -> Duration {
        let space = match Space::of(&self.data_dir) {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(%error, dir = %self.data_dir.display(), "cannot see how much of the disk is free");
                return LOOK.1;
            }
        };
        let was_low = self.room.is_low();
        if space.is_low() && !was_low {
            tracing::error!(
                free = space.free,
                needed = space.low_bytes(),
                dir = %self.data_dir.display(),
                "the disk is nearly full: publishes are refused until messages are consumed or there is more room"
            );
            self.room.set_low(true);
        } else if was_low && space.is_ample() {
            tracing::info!(
                free = space.free,
                "the disk has room again; publishes go on"
            );
            self.room.set_low(false);
        }
        self.keep(space);
        let spare = space.free.saturating_sub(space.low_bytes());
        Duration::from_millis(spare / (FILLS_BY / 1_000)).clamp(LOOK.0, LOOK.1)
    }

    /// Uses the reserve when Postgres could not go on without, and makes it when that leaves enough.
    fn keep(&self, space: Space) {
        let (path, bytes) = (self.data_dir.join(NAME), reserve_bytes(space.total));
        let is_there = path.exists();
        if is_there && space.free < space.low_bytes() / 4 {
            match fs::remove_file(&path) {
                Ok(()) => tracing::warn!(
                    free = space.free,
                    reserve = bytes,
                    "the disk is full; its reserve is given to Postgres"
                ),
                Err(error) => tracing::warn!(%error, "the reserve of the disk cannot be used"),
            }
        } else if !is_there
            && space.free > bytes + space.low_bytes() * 2
            && let Err(error) = make(&path, bytes)
        {
            tracing::warn!(%error, path = %path.display(), "no room can be reserved on the disk");
            // What was written of it must not fill the disk.
            let _ = fs::remove_file(&path);
        }
    }

    /// Watches until `stop`. Calls of the file system are made off the runtime: a network drive may not answer.
    pub(super) async fn watch(self, stop: CancellationToken) {
        loop {
            let once = self.clone();
            let pause = tokio::task::spawn_blocking(move || once.look()).await;
            tokio::select! {
                () = sleep(pause.unwrap_or(LOOK.1)) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

fn reserve_bytes(total: u64) -> u64 {
    (total / 20).clamp(BYTES_MIN, BYTES_MAX)
}

/// Makes a file that occupies its bytes on the disk.
fn make(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    #[cfg(target_os = "linux")]
    if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).is_ok() {
        return Ok(());
    }
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&zeros)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_occupies_its_bytes() {
        let path = std::env::temp_dir().join(format!("cursus-reserve-{}", std::process::id()));
        make(&path, BYTES_MIN).unwrap();
        let meta = fs::metadata(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(meta.len(), BYTES_MIN);
        assert!(std::os::unix::fs::MetadataExt::blocks(&meta) * 512 >= BYTES_MIN);
        assert_eq!(reserve_bytes(300 << 20), BYTES_MIN);
        assert_eq!(reserve_bytes(1 << 40), BYTES_MAX);
    }
}
