//! Puts right what a copy, a backup or a power cut leaves of a cluster, before Postgres looks at it: mode and owner of its
//! files, directories that are always empty and that some tools leave out, and a `postmaster.pid` without content. The
//! caller holds the lock of the data directory. Nothing here changes the content of the database.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::Error;
use super::account::Account;
use super::process::{self, Postmaster};

/// Modes of the cluster's directory that Postgres accepts.
const MODES: [u32; 2] = [0o700, 0o750];

/// Directories of every supported version that may be empty while Postgres does not run.
const MAY_BE_EMPTY: [&str; 13] = [
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_tblspc",
    "pg_twophase",
];

/// Repairs the cluster in `dir` for `account`.
pub(super) fn repair(dir: &Path, account: &Account) -> Result<(), Error> {
    let meta = fs::symlink_metadata(dir).map_err(Error::file("read", dir))?;
    let mode = meta.mode() & 0o7777;
    if !MODES.contains(&mode) {
        tracing::info!(dir = %dir.display(), "the mode of the cluster is {mode:o}; setting it to 700");
        set_mode(dir, MODES[0])?;
    }
    let mut changed = 0;
    walk(dir, account, &mut changed)?;
    if changed > 0 {
        tracing::info!(dir = %dir.display(), files = changed, "owner or mode of files of the cluster was put right");
    }
    for name in MAY_BE_EMPTY {
        let missing = dir.join(name);
        match DirBuilder::new().mode(0o700).create(&missing) {
            Ok(()) => account.own(&missing)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file("create", &missing)(error)),
        }
    }
    remove_empty_pid_file(dir)
}

/// Gives everything below `dir` to the account, with the rights that Postgres needs. Symbolic links are not followed.
fn walk(dir: &Path, account: &Account, changed: &mut usize) -> Result<(), Error> {
    own(dir, account, changed)?;
    let entries = fs::read_dir(dir).map_err(Error::file("read", dir))?;
    for entry in entries {
        let path = entry.map_err(Error::file("read", dir))?.path();
        if own(&path, account, changed)? {
            walk(&path, account, changed)?;
        }
    }
    Ok(())
}

/// Gives one file to the account. Returns whether it is a directory.
fn own(path: &Path, account: &Account, changed: &mut usize) -> Result<bool, Error> {
    let meta = match fs::symlink_metadata(path) {
        // The Postgres of a killed node may still work here; it is stopped later.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        meta => meta.map_err(Error::file("read", path))?,
    };
    let needed = if meta.is_dir() { 0o700 } else { 0o600 };
    let mut has_changed = false;
    if !meta.is_symlink() && meta.mode() & needed != needed {
        set_mode(path, (meta.mode() | needed) & 0o7777)?;
        has_changed = true;
    }
    if account.drops && meta.uid() != account.uid {
        lchown(path, Some(account.uid), Some(account.gid)).map_err(Error::file("chown", path))?;
        has_changed = true;
    }
    *changed += usize::from(has_changed);
    Ok(meta.is_dir())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::file("chmod", path))
}

/// Removes a `postmaster.pid` that a power cut left empty: Postgres would not start. A Postgres that begins in this very
/// moment has an empty file as well, but then it works in the directory.
fn remove_empty_pid_file(dir: &Path) -> Result<(), Error> {
    let path = dir.join("postmaster.pid");
    if !path.exists() || process::any_works_in(dir) || Postmaster::read(dir).is_some() {
        return Ok(());
    }
    tracing::info!(path = %path.display(), "removing a process file without a process");
    fs::remove_file(&path).map_err(Error::file("remove", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_directory_gets_what_postgres_needs() {
        let dir = std::env::temp_dir().join(format!("cursus-repair-{}", std::process::id()));
        fs::create_dir_all(dir.join("base/1")).unwrap();
        fs::write(dir.join("base/1/1259"), "rows").unwrap();
        fs::write(dir.join("postmaster.pid"), "").unwrap();
        fs::set_permissions(dir.join("base/1/1259"), Permissions::from_mode(0o440)).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o2770)).unwrap();
        let account = Account::of(&dir).unwrap();

        repair(&dir, &account).unwrap();

        let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode(""), mode("base/1/1259")), (0o700, 0o640));
        assert!(dir.join("pg_logical/snapshots").is_dir());
        assert!(!dir.join("postmaster.pid").exists());
        let owner = fs::metadata(dir.join("base/1/1259")).unwrap().uid();
        assert_eq!(owner, account.uid);
        fs::remove_dir_all(&dir).unwrap();
    }
}
