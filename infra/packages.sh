#!/usr/bin/env bash
# Installs the system packages that building and running need (Debian, Ubuntu), as root or with sudo; with --test also
# those of the tests. Does nothing when they are there. The Rust toolchain is not among them: https://rustup.rs
set -euo pipefail

oldest=15 # major version of Postgres

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Where `cursus serve` looks for Postgres as well.
postgres_dirs() {
    printf '%s\n' "${CURSUS_POSTGRES_BIN:-}" "${CURSUS_TEST_PG_BIN:-}"
    compgen -G '/usr/lib/postgresql/*/bin' || true
    compgen -G '/usr/pgsql-*/bin' || true
    compgen -G '/opt/homebrew/opt/postgresql@*/bin' || true
    compgen -G '/usr/local/opt/postgresql@*/bin' || true
    echo /usr/local/pgsql/bin
    dirname "$(command -v postgres || true)"
}

# The major version of the newest Postgres server on this machine, or 0.
newest_postgres() {
    local dir version newest=0
    while read -r dir; do
        [ -x "$dir/initdb" ] || continue
        version=$("$dir/postgres" -V 2>/dev/null | sed -n 's/^.*(PostgreSQL) \([0-9]*\).*/\1/p')
        [ "${version:-0}" -le "$newest" ] || newest=$version
    done < <(postgres_dirs)
    echo "$newest"
}

missing=()
[ "$(newest_postgres)" -ne 0 ] || missing+=(postgresql)
command -v curl >/dev/null || missing+=(curl ca-certificates)
command -v cc >/dev/null || missing+=(build-essential)
if [ "${1:-}" = --test ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
fi

if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}"
    command -v apt-get >/dev/null || fail "please install ${missing[*]}: there is no apt-get here"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "please install ${missing[*]}: not root, and there is no sudo"
        as_root=(sudo)
    fi
    # A new machine often updates itself in its first minutes and holds the lock meanwhile.
    apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    "${apt[@]}" update
    # Debian would create and start a cluster of its own, which is not used here.
    if [[ " ${missing[*]} " == *" postgresql "* ]] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        "${as_root[@]}" mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    "${apt[@]}" install -y --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}"
fi

found=$(newest_postgres)
[ "$found" -ge "$oldest" ] || fail "Postgres $oldest or later is needed, and this machine has $found. Newer packages come from the
Postgres project: apt-get install postgresql-common ca-certificates &&
/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y && apt-get install postgresql-17
Or name a directory with other server binaries in CURSUS_POSTGRES_BIN."
