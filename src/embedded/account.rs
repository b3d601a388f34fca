//! The user that the private Postgres runs as, and how a command is started as that user. Postgres refuses to run as
//! root, so a node of root starts it as `postgres` or `nobody`; any other node starts it as its own user.
//!
//! The user that root drops to may have no access to a parent of the data directory (such as `/root`). So root opens
//! the cluster directory and passes it on as a descriptor, and Postgres uses the path `/proc/self/fd/9`. Such a path is
//! resolved without the directories above it, and every process that Postgres starts inherits the descriptor.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;

/// Moves the descriptor from 0 to 9: `initdb` needs its standard input for its child processes.
const HAND_OVER: &str = "exec 9<&0 </dev/null; exec \"$@\"";
const HANDED_OVER: &str = "/proc/self/fd/9";

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether this process is root and starts commands as this user.
    pub(super) drops: bool,
}

impl Account {
    /// The owner of the cluster, or the user that a new cluster will belong to.
    pub(super) fn of(cluster: &Path) -> Result<Self, Error> {
        let uid = rustix::process::geteuid();
        let owner = fs::metadata(cluster)
            .ok()
            .map(|meta| (meta.uid(), meta.gid()));
        if !uid.is_root() {
            let (uid, gid) = (uid.as_raw(), rustix::process::getegid().as_raw());
            return match owner {
                Some((owner, _)) if owner != uid => Err(Error::Owner {
                    cluster: cluster.to_owned(),
                    owner,
                    uid,
                }),
                _ => Ok(Self {
                    uid,
                    gid,
                    drops: false,
                }),
            };
        }
        let (uid, gid) = match owner.filter(|(owner, _)| *owner != 0) {
            Some(owner) => owner,
            None => {
                let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
                ["postgres", "nobody"]
                    .iter()
                    .find_map(|name| ids_of(name, &passwd))
                    .ok_or(Error::NoAccount)?
            }
        };
        Ok(Self {
            uid,
            gid,
            drops: true,
        })
    }

    /// Changes the owner of `path` to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        if self.drops {
            chown(path, Some(self.uid), Some(self.gid)).map_err(Error::file("chown", path))?;
        }
        Ok(())
    }

    /// A command of this user for the cluster directory `dir`, and the path under which it reaches that directory. It
    /// gets its own process group, so that Ctrl-C in the terminal does not stop Postgres before the node has drained.
    pub(super) fn command(&self, program: &Path, dir: &Path) -> Result<(Command, PathBuf), Error> {
        let handed_over = self.drops && Path::new("/proc/self/fd").exists();
        let (mut command, data) = if handed_over {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", HAND_OVER, "sh"]).arg(program);
            command.stdin(File::open(dir).map_err(Error::file("open", dir))?);
            (command, PathBuf::from(HANDED_OVER))
        } else {
            let mut command = Command::new(program);
            command.stdin(Stdio::null());
            (command, dir.to_owned())
        };
        if self.drops {
            // The standard library clears the supplementary groups when root changes user.
            command.uid(self.uid).gid(self.gid);
        }
        // An inherited PGDATA, PGOPTIONS or locale would change the behaviour of Postgres.
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C");
        command.current_dir("/").process_group(0);
        Ok((command, data))
    }
}

/// What a command of [`Account::command`] said, with the path of the directory instead of the one that it was given.
pub(super) fn with_real_path(said: &str, dir: &Path) -> String {
    said.trim().replace(HANDED_OVER, &dir.display().to_string())
}

fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_real_directory() {
        let said = "FATAL:  data directory \"/proc/self/fd/9\" has wrong ownership\n";
        assert_eq!(
            with_real_path(said, Path::new("/srv/data/postgres")),
            "FATAL:  data directory \"/srv/data/postgres\" has wrong ownership"
        );
    }

    #[test]
    fn ids_are_read_from_the_user_database() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:7::/:\npostgres:x:101:104:PG,,,:/var/lib:/bin/sh\n";
        assert_eq!(ids_of("postgres", passwd), Some((101, 104)));
        assert_eq!(ids_of("nobody", passwd), None);
    }
}
