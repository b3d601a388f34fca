#!/usr/bin/env bash
# From a fresh clone to a message published, received and acknowledged: installs what is missing (Debian, Ubuntu),
# builds, starts `cursus serve` in the background and shows it with curl. Run it again at any time: what is installed,
# built or running already is used as it is. Settings: CURSUS_LISTEN (127.0.0.1:8080) and CURSUS_DATA_DIR (./cursus-data).
set -euo pipefail
cd "$(dirname "$0")/.."

listen=${CURSUS_LISTEN:-127.0.0.1:8080}
data_dir=${CURSUS_DATA_DIR:-./cursus-data}
url=http://$listen
pid_file=$data_dir/cursus.pid
log_file=$data_dir/cursus.log

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

install_missing() {
    infra/packages.sh
    if ! command -v cargo >/dev/null; then
        [ -x "$HOME/.cargo/bin/cargo" ] || fail "Rust is missing. Get it from https://rustup.rs, then run this again."
        PATH=$HOME/.cargo/bin:$PATH
    fi
}

is_ready() { curl -fs -o /dev/null --noproxy '*' --max-time 2 "$url/readyz"; }

start() {
    say "building (the first time takes some minutes)"
    cargo build --release --locked
    mkdir -p -m 700 "$data_dir"
    say "starting cursus serve"
    local target=${CARGO_TARGET_DIR:-target}
    # In a session of its own: closing this terminal, or Ctrl-C in it, must not end the service.
    # Without what would make it a node of a fleet, or serve TLS.
    env -u DATABASE_URL -u OBJECT_STORE -u S3_BUCKET -u CURSUS_TLS_CERT -u CURSUS_TLS_KEY \
        setsid nohup "$target/release/cursus" serve --listen "$listen" --data-dir "$data_dir" \
        >>"$log_file" 2>&1 </dev/null &
    local pid=$!
    echo "$pid" >"$pid_file"
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        is_ready && return
        kill -0 "$pid" 2>/dev/null || { tail -n 20 "$log_file" >&2; fail "it did not start; log: $log_file"; }
        sleep 0.1
    done
    tail -n 20 "$log_file" >&2
    fail "not ready within a minute; log: $log_file"
}

# Prints a command as one would type it, runs it, and keeps what it said in $answer.
show() {
    local word line='$'
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=-]+$ ]] || word="'$word'"
        line+=" $word"
    done
    printf '\n%s\n' "$line"
    answer=$("$@" -s --noproxy '*' --fail-with-body) || { printf '%s\n' "$answer"; fail "that should have worked"; }
    printf '%s\n' "$answer"
}

tour() {
    local json='content-type: application/json' receipt
    say "a topic, and a subscription to it"
    show curl -X PUT "$url/v1/topics/orders" -H "$json" -d '{}'
    show curl -X PUT "$url/v1/subscriptions/billing" -H "$json" -d '{"topic":"orders"}'
    say "publish a message: the body is the message"
    show curl "$url/v1/topics/orders/messages" -H 'content-type: text/plain' -d 'two espressos, table 7'
    say "receive it: hidden from others until it is acknowledged or its visibility timeout is over"
    show curl "$url/v1/subscriptions/billing/receive" -H "$json" -d '{"max_messages":1,"wait_seconds":5}'
    receipt=$(sed -n 's/.*"receipt" *: *"\([^"]*\)".*/\1/p' <<<"$answer" | head -n 1)
    [ -n "$receipt" ] || fail "no message came"
    say "acknowledge it: done for this subscription"
    show curl "$url/v1/subscriptions/billing/ack" -H "$json" -d "{\"receipts\":[\"$receipt\"]}"
}

install_missing
if is_ready; then
    say "cursus is already running at $url"
else
    start
fi
tour
say "Cursus stays up at $url (API reference: $url/docs)"
echo "   data and log: $data_dir"
# The lock names the process that serves this directory, however it was started; a fleet node has none.
pid=$(sed -n 's/^pid=//p' "$data_dir/cursus.lock" 2>/dev/null || cat "$pid_file" 2>/dev/null || true)
echo "   stop it:      kill ${pid:-<its process>}"
