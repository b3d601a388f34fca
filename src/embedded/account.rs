//! The user that the private Postgres runs as, and how a command is started as that user. Postgres refuses root, so
//! root drops to `postgres` or `nobody`; everybody else stays who they are.
//!
//! The user that root drops to may not be able to reach the data directory at all (`/root` is closed to it). So the
//! directory is handed over open, as a descriptor, and Postgres is told to find it at `/proc/self/fd/9`: such a path is
//! followed without looking at the directories above it, and every process that Postgres starts inherits the descriptor.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;

/// Descriptor 0 would be the obvious one, but `initdb` talks to its children over theirs.
const HAND_OVER: &str = "exec 9<&0 </dev/null; exec \"$@\"";
const HANDED_OVER: &str = "/proc/self/fd/9";

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    gid: u32,
    /// This process is root, so commands are started as somebody else.
    drops: bool,
}

impl Account {
    /// The owner of the cluster, or of one to be made there.
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

    /// Gives `path` to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        if self.drops {
            chown(path, Some(self.uid), Some(self.gid)).map_err(Error::file("chown", path))?;
        }
        Ok(())
    }

    /// A command of this user over the cluster directory `dir`, and the path by which it finds that directory.
    /// In a process group of its own, so that Ctrl-C at the terminal does not reach Postgres before the node has drained.
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
        // An inherited PGDATA, PGOPTIONS or locale would change what Postgres does.
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C");
        command.current_dir("/").process_group(0);
        Ok((command, data))
    }
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
    use super::ids_of;

    #[test]
    fn ids_are_read_from_the_user_database() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:7::/:\npostgres:x:101:104:PG,,,:/var/lib:/bin/sh\n";
        assert_eq!(ids_of("postgres", passwd), Some((101, 104)));
        assert_eq!(ids_of("nobody", passwd), None);
    }
}
