#!/usr/bin/env bash
# Runs third-party clients against the daemon:
#   1. curl and wget mirror a directory tree completely, with equal checksums;
#   2. wrk and siege, interrupted and restarted ten times, leave a server that answers and whose
#      ledger balances;
#   3. the same for echo under ringload, killed ten times in the middle of a run;
#   4. an uploaded file comes back equal, and uploads that were killed leave nothing behind.
# Usage: benches/shown.sh [DIR]      DIR: the tree to serve (default: target/doc)
# PROGRAMS=FOLDER names the folder of the built programs (default: target/release).
# Needs the Debian packages curl, wget, siege and wrk, and takes about half a minute. Everything
# stays on loopback; the script ends only processes that it started.
set -euo pipefail
cd "$(dirname "$0")/.."
programs="${PROGRAMS:-${CARGO_TARGET_DIR:-target}/release}"
tree="$(realpath "${1:-${CARGO_TARGET_DIR:-target}/doc}")"
for program in curl wget siege wrk; do
    command -v "$program" >/dev/null && continue
    echo "shown.sh: $program is missing: apt-get install $program" >&2
    exit 1
done
work="$(mktemp -d)"
server=
cleanup() {
    if [ -n "$server" ]; then kill -TERM "$server" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "shown.sh: $*" >&2; exit 1; }

# start PROGRAM ARG... : a daemon on a free port; sets server and address.
start() {
    "$programs/ringwrightd" "$@" --listen 127.0.0.1:0 >"$work/out" 2>"$work/err" &
    server=$!
    for _ in $(seq 100); do
        if grep -q '^listening ' "$work/out"; then break; fi
        sleep 0.05
    done
    address="$(sed -n 's,^listening [a-z]*://,,p' "$work/out" | head -n 1)"
    [ -n "$address" ] || fail "ringwrightd $1 does not listen: $(cat "$work/err")"
}

# stop : drains the daemon; it must end with a balanced ledger.
stop() {
    kill -TERM "$server"
    wait "$server" || fail "ringwrightd ended with $?: $(cat "$work/err")"
    server=
    grep -q '^ledger .*"open":0,.*"balanced":true' "$work/err" || fail "$(cat "$work/err")"
    grep '^ledger ' "$work/err" | cut -c 1-160
}

echo "== the tree, mirrored"
start http "$tree"
(cd "$tree" && find . -type f -not -path '*/.*' | sed 's,^\./,,' | sort) >"$work/files"
(cd "$tree" && xargs -d '\n' sha256sum <"$work/files") >"$work/expected"
mkdir "$work/curl"
while read -r file; do
    # curl's own escapes of its URL globbing are off; what rustdoc names needs no others.
    printf 'url = "http://%s/%s"\noutput = "%s"\ncreate-dirs\n' \
       "$address" "$file" "$work/curl/$file"
done <"$work/files" >"$work/list"
curl --silent --show-error --fail --globoff --max-time 120 --config "$work/list"
(cd "$work/curl" && sha256sum --quiet -c "$work/expected") || fail "curl's mirror differs"
echo "curl: $(wc -l <"$work/files") files, equal checksums"
top="$(grep '^ringwright/index.html$' "$work/files" ||
    grep '/index.html$' "$work/files" | head -n 1)"
# Status 8: the pages link to files that do not exist.
timeout 120 wget --quiet --recursive --level=inf --no-host-directories \
    --directory-prefix "$work/wget" "http://$address/$top" || [ $? -eq 8 ] || fail "wget failed"
found=0
while read -r file; do
    file="${file#"$work/wget/"}"
    case "$file" in *\?* | *\#*) continue ;; esac
    [ -f "$tree/$file" ] || continue
    cmp -s "$work/wget/$file" "$tree/$file" || fail "wget: $file differs"
    found=$((found + 1))
done < <(find "$work/wget" -type f)
[ "$found" -gt 0 ] || fail "wget found nothing"
echo "wget: $found files reached by links, equal"

echo "== wrk, then siege, interrupted and restarted ten times"
timeout 30 wrk -t1 -c64 -d2s "http://$address/$top" |
    grep -E 'Requests/sec|Socket errors|Non-2xx' || true
for _ in $(seq 10); do
    siege -b -c 40 -t 5S "http://$address/$top" >/dev/null 2>&1 &
    load=$!
    sleep 0.7
    kill -INT "$load" 2>/dev/null || true
    sleep 0.1
    kill -KILL "$load" 2>/dev/null || true
    wait "$load" 2>/dev/null || true
done
curl --silent --fail --max-time 5 --output /dev/null "http://$address/$top" ||
    fail "the server does not answer after siege"
stop

echo "== echo under ringload, killed ten times"
start echo
"$programs/ringload" echo "$address" -c 64 -d 2s --quiet | head -n 4
for _ in $(seq 10); do
    "$programs/ringload" echo "$address" -c 100 -d 5s --quiet >/dev/null 2>&1 &
    load=$!
    sleep 0.3
    kill -KILL "$load"
    wait "$load" 2>/dev/null || true
done
"$programs/ringload" echo "$address" -c 4 -n 100 --quiet >/dev/null ||
    fail "the server does not echo after the kills"
stop

echo "== a file put and got, also while puts and gets are killed"
mkdir "$work/kept"
head -c 300M /dev/urandom >"$work/large"
start packets "$work/kept" --replace
"$programs/ringload" packets "$address" put "$work/large" --quiet
for _ in $(seq 5); do
    "$programs/ringload" packets "$address" put "$work/large" --as other --quiet >/dev/null 2>&1 &
    load=$!
    "$programs/ringload" packets "$address" get large --out "$work/never" --quiet >/dev/null 2>&1 &
    other=$!
    sleep 0.1
    kill -KILL "$load" "$other"
    wait "$load" "$other" 2>/dev/null || true
    rm -f "$work"/.never*
done
"$programs/ringload" packets "$address" get large --out "$work/back" --quiet
cmp "$work/large" "$work/back" || fail "what came back differs"
[ "$(ls -A "$work/kept")" = large ] || fail "left behind: $(ls -A "$work/kept")"
stop
echo "shown.sh: 4 passed, 0 failed"
