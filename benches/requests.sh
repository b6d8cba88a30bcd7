#!/usr/bin/env bash
# Counts the instructions that the daemon spends in user space on a GET of 1 KiB, and lists the
# functions that spend them: 5,000 requests on one connection minus 1,000, under callgrind.
#   folder   ringwrightd http DIR
#   sites    16 sites of 50 rules each, and precompressed variants
#   log      ringwrightd http DIR with an access log
#   all      16 sites, 50 rules, variants, an access log
# The client accepts gzip and br, and the file has both variants. Nothing is installed, everything
# stays on loopback, and the script ends only processes that it started.
# Usage: benches/requests.sh [folder|sites|log|all]...     (default: all four)
# PROGRAMS=FOLDER names the folder of the built programs (default: target/release).
# TOP=N lists so many functions (default: 0), and KEEP=FOLDER keeps the profiles there, `few` and
# `many`. ACCEPT=CODINGS replaces what the client accepts. Each takes about 5 s.
set -euo pipefail
cd "$(dirname "$0")/.."
programs="${PROGRAMS:-${CARGO_TARGET_DIR:-target}/release}"
accept="${ACCEPT-gzip, deflate, br}"
top="${TOP:-0}"
few=1000
many=5000
work="$(mktemp -d)"
server=
cleanup() {
    if [ -n "$server" ]; then kill -TERM "$server" 2>/dev/null || true; fi
    if [ -n "${KEEP:-}" ]; then cp -r "$work/." "$KEEP"; fi; rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "requests.sh: $*" >&2; exit 1; }
for program in valgrind cc; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install valgrind gcc"
done

# valgrind 3.19 knows neither the clone(2) of the attempt before the start nor openat2(2).
cat >"$work/calls.c" <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/syscall.h>
#include <linux/openat2.h>

long syscall(long number, ...)
{
    typedef long call(long, long, long, long, long, long, long);
    __builtin_va_list list;
    long at[6];
    __builtin_va_start(list, number);
    for (int i = 0; i < 6; i++)
        at[i] = __builtin_va_arg(list, long);
    __builtin_va_end(list);
    call *next = (call *)dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_clone) {
        errno = EAGAIN;
        return -1;
    }
    if (number == SYS_openat2) {
        const struct open_how *how = (const void *)at[2];
        return next(SYS_openat, at[0], at[1], how->flags, how->mode, 0, 0);
    }
    return next(number, at[0], at[1], at[2], at[3], at[4], at[5]);
}
END
cc -shared -fPIC -O2 -o "$work/calls.so" "$work/calls.c" -ldl

# The content and its variants, which have settled when they are asked for.
mkdir "$work/www"
head -c 768 /dev/zero | base64 --wrap=0 >"$work/www/file.html"
for suffix in gz br; do cp "$work/www/file.html" "$work/www/file.html.$suffix"; done

# configure LOGGED : 16 sites of one listener, 50 rules each.
configure() {
    local port=$((20000 + RANDOM % 10000))
    echo 'engine = { shards = 1, ring = "epoll" }'
    if [ "$1" = true ]; then echo "log = { access = \"$work/access.log\" }"; fi
    for site in $(seq 16); do
        printf '[[site]]\nlisten = ["127.0.0.1:%s"]\n' "$port"
        printf 'names = ["site%s.example", "www.site%s.example"]\n' "$site" "$site"
        printf 'root = "%s/www"\nprecompressed = true\n' "$work"
        printf 'errors = { 404 = "/404.html" }\n'
        printf '[[site.rule]]\nmatch = "/internal/**"\nallow = ["10.0.0.0/8"]\n'
        printf '[[site.rule]]\nmatch = "/search"\nrate = "10/s"\n'
        printf '[[site.rule]]\nmatch = "*.html"\ncache = "max-age=60"\n'
        printf '[[site.rule]]\nmatch = "/**"\nheaders = { X-Frame-Options = "DENY" }\n'
        for rule in $(seq 23); do
            printf '[[site.rule]]\nmatch = "/assets%s/**"\ncache = "max-age=3600"\n' "$rule"
            printf '[[site.rule]]\nmatch = "/old%s/**"\n' "$rule"
            printf 'redirect = { to = "/new%s", status = 308 }\n' "$rule"
        done
    done
}

# count REQUESTS PROFILE ARG... : runs the daemon with these arguments.
count() {
    local requests="$1" profile="$2"
    shift 2
    LD_PRELOAD="$work/calls.so" valgrind --tool=callgrind --compress-strings=no \
        --compress-pos=no --callgrind-out-file="$profile" \
        "$programs/ringwrightd" "$@" >"$work/out" 2>"$work/err" &
    server=$!
    for _ in $(seq 1200); do
        if grep -q '^listening ' "$work/out"; then break; fi
        sleep 0.1
    done
    local address
    address="$(sed -n 's,^listening http://,,p' "$work/out" | head -n 1)"
    [ -n "$address" ] || fail "ringwrightd does not listen: $(cat "$work/err")"
    "$programs/ringload" http "http://$address/file.html" -c 1 -t 1 -n "$requests" --quiet \
        -H 'Host: site9.example' -H 'User-Agent: Mozilla/5.0 (X11; Linux x86_64) requests.sh' \
        -H 'Accept: */*' -H "Accept-Encoding: $accept" >"$work/load" ||
        fail "ringload: $(cat "$work/load")"
    kill -TERM "$server"
    wait "$server" || fail "ringwrightd ended with $?: $(cat "$work/err")"
    server=
}

# total PROFILE : all instructions.
total() { awk '/^(totals|summary):/ { sum = $2 } END { print sum }' "$1"; }

# functions PROFILE : what each function spent itself.
functions() {
    awk '/^fn=/ {
            name = substr($0, 4)
            sub(/\047[0-9]+$/, "", name)
            sub(/::h[0-9a-f]+$/, "", name)
        }
        /^calls=/ { getline; next }
        /^[0-9]/ { cost[name] += $2 }
        END { for (name in cost) print cost[name] "\t" name }' "$1"
}

# measure NAME ARG...
measure() {
    local name="$1"
    shift
    count "$few" "$work/few" "$@"
    count "$many" "$work/many" "$@"
    local each=$((($(total "$work/many") - $(total "$work/few")) / (many - few)))
    printf '%-8s %7d instructions for a GET\n' "$name" "$each"
    if [ "$top" -gt 0 ]; then
        awk -F '\t' -v requests=$((many - few)) '
            FNR == NR { few[$2] += $1; next } { many[$2] += $1 }
            END { for (name in many) {
                printf "%9.1f  %s\n", (many[name] - few[name]) / requests, name
            } }' <(functions "$work/few") <(functions "$work/many") |
            sort -rn | head -n "$top"
    fi
}

configure false >"$work/sites.toml"
configure true >"$work/all.toml"
sleep 0.1
for name in "${@:-folder sites log all}"; do
    for one in $name; do
        case "$one" in
            folder | log)
                set -- http "$work/www" --listen 127.0.0.1:0 --shards 1 --ring epoll
                if [ "$one" = log ]; then set -- "$@" --access-log "$work/access.log"; fi
                ;;
            sites | all) set -- run "$work/$one.toml" ;;
            *) fail "$one is none of folder, sites, log, all" ;;
        esac
        measure "$one" "$@"
    done
done
