//! Room on the disk of the embedded mode, where Postgres, its log and the objects share one disk. A full disk would keep
//! messages from being settled and Postgres from starting, so publishes stop while there is still room for the rest.
//! `embedded` watches the disk, `engine` asks before it publishes, and `blob` before it writes an object.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Smallest and largest room below which publishes stop: what Postgres needs to settle messages, to write a checkpoint
/// and to start. It crashes when it cannot make the next 16 MiB of its log.
const LOW_BYTES: (u64, u64) = (64 << 20, 1 << 30);
/// Files below which publishes stop, on file systems that count them.
const LOW_FILES: u64 = 256;

/// The room of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the whole disk.
    pub total: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Whether few files can be created.
    pub lacks_files: bool,
}

impl Space {
    /// The disk of a directory.
    ///
    /// # Errors
    /// When the kernel does not know.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(directory)?;
        Ok(Self {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
            lacks_files: found.f_files > 0 && found.f_favail < LOW_FILES,
        })
    }

    /// Bytes below which publishes stop.
    #[must_use]
    pub fn low_bytes(&self) -> u64 {
        (self.total / 10).clamp(LOW_BYTES.0, LOW_BYTES.1)
    }

    /// Whether publishes should stop.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.lacks_files || self.free < self.low_bytes()
    }

    /// Whether publishes may go on after they stopped.
    #[must_use]
    pub fn is_ample(&self) -> bool {
        !self.lacks_files && self.free >= self.low_bytes() / 4 * 5
    }

    /// Whether an object of `bytes` leaves Postgres what it needs. A small part of what is left may always be used: a
    /// slot of payloads is emptied when the last of them has become an object, and that makes room.
    #[must_use]
    pub fn takes(&self, bytes: u64) -> bool {
        let spare = self.free.saturating_sub(self.low_bytes() / 16);
        self.free >= (self.low_bytes() / 4 * 3).saturating_add(bytes) || bytes <= spare / 8
    }
}

/// Whether publishes are stopped; clones are handles on the same.
#[derive(Clone, Debug, Default)]
pub struct Room {
    is_low: Arc<AtomicBool>,
}

impl Room {
    /// Whether there is no room for publishes.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Relaxed)
    }

    /// Stops publishes, or lets them go on.
    pub fn set_low(&self, is_low: bool) {
        self.is_low.store(is_low, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_stop_before_the_disk_is_full_and_go_on_a_little_later() {
        let space = |free_mib: u64| Space {
            total: 300 << 20,
            free: free_mib << 20,
            lacks_files: false,
        };
        assert!(space(63).is_low() && !space(65).is_low());
        assert!(!space(79).is_ample() && space(81).is_ample());
        assert!(space(64).takes(16 << 20) && !space(64).takes(17 << 20));
        assert!(space(12).takes(1 << 20) && !space(12).takes(2 << 20) && !space(4).takes(1));
        let files = Space {
            lacks_files: true,
            ..space(200)
        };
        assert!(files.is_low() && !files.is_ample());
        assert!(Space::of(Path::new("/")).unwrap().total > 0);
    }
}
