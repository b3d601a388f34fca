# A node for the clients that are tried against it: sourced by `openapi/sdk` and `sdk/check` in the root of the repository.
# Sets `scratch`, a directory that is removed at the exit, and `scenario`: URL, key, and key of a tenant that is full.
# CURSUS_BIN names the program (else it is built).

scratch=$(mktemp -d)
node_pid=

end() {
    if [ -n "$node_pid" ]; then
        kill "$node_pid" 2>/dev/null || true
        wait "$node_pid" || true
    fi
    rm -rf "$scratch"
}
trap end EXIT

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# A key of the operator, and one of a tenant whose only topic is made.
start_limited_node() {
    local program=${CURSUS_BIN:-}
    if [ -z "$program" ]; then
        cargo build --locked --bin cursus
        program=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/cursus
    fi
    # A fleet in the environment is not ours to test against.
    unset DATABASE_URL OBJECT_STORE S3_BUCKET
    export NO_PROXY='*'
    local data=$scratch/data key limited url
    key=$("$program" key create --scope publish --scope receive --scope manage --scope admin --data-dir "$data" 2>"$scratch/log") ||
        { cat "$scratch/log" >&2; fail "no key could be made"; }
    limited=$("$program" key create --tenant limited --scope manage --data-dir "$data" 2>>"$scratch/log")
    "$program" serve --listen 127.0.0.1:0 --data-dir "$data" >"$scratch/log" 2>&1 &
    node_pid=$!
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        url=http://$(sed -n 's/^listen=//p' "$data/cursus.lock" 2>/dev/null || true)
        [ "$url" != http:// ] && curl -fs -o /dev/null --noproxy '*' "$url/readyz" && break
        kill -0 "$node_pid" 2>/dev/null || { cat "$scratch/log" >&2; fail "the node did not start"; }
        sleep 0.1
    done
    local put=(curl -fsS -o /dev/null --noproxy '*' -X PUT -H 'content-type: application/json')
    "${put[@]}" "$url/v1/admin/tenants/limited/quota" -H "authorization: Bearer $key" -d '{"topics":1}'
    "${put[@]}" "$url/v1/topics/only" -H "authorization: Bearer $limited" -d '{}'
    scenario=("$url" "$key" "$limited")
}
