# Shared by the scripts of .ci: installs Debian packages, finds test programs, runs named steps and
# prints their times.

# install PROGRAM=PACKAGE... =PACKAGE... : installs the packages of the programs that are missing,
# and the packages without a program of their own.
install() {
    local wanted=() pair
    for pair in "$@"; do
        if [ "${pair%%=*}" ]; then
            PATH="$PATH:/usr/sbin" command -v "${pair%%=*}" >/dev/null || wanted+=("${pair#*=}")
        else
            dpkg-query --show "${pair#=}" >/dev/null 2>&1 || wanted+=("${pair#=}")
        fi
    done
    [ "${#wanted[@]}" -eq 0 ] && return
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${wanted[@]}"
}

# programs ARGUMENT... : builds the programs that `cargo test` runs with these arguments, and prints
# their paths.
programs() {
    cargo test --locked --no-run "$@" 2>&1 | tee >(cat >&2) |
        sed -n 's/^ *Executable .*(\(.*\))$/\1/p' | xargs -r realpath
}

step_names=()
step_seconds=()

# step NAME COMMAND... : runs the command; a failure ends the script.
step() {
    local name=$1 begin=$SECONDS
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@"
    step_names+=("$name")
    step_seconds+=($((SECONDS - begin)))
    printf '== %s took %d s\n' "$name" "$((SECONDS - begin))"
}

# Prints the time of each step; called once, at the end.
print_steps() {
    local at
    printf '\n%-16s seconds\n' step
    for at in "${!step_names[@]}"; do
        printf '%-16s %7d\n' "${step_names[$at]}" "${step_seconds[$at]}"
    done
    printf '%-16s %7d\n' total "$SECONDS"
}

# churn_rings PROGRAMS DURATION : every kind of `ringload churn` against the daemon, on both rings
# at the same time. PROGRAMS is the folder of the built programs. A finding, or a ledger that does
# not balance at the end, is a failure.
churn_rings() {
    local programs=$1 duration=$2 folder mode ring code=0 churning
    folder=$(mktemp -d)
    for mode in echo http packets; do
        churning=()
        for ring in io_uring epoll; do
            mkdir "$folder/$mode-$ring"
            head -c 3M /dev/urandom >"$folder/$mode-$ring/large.bin"
            churn_daemon "$programs/ringwrightd" "$programs/ringload" "$mode" "$duration" \
                "$folder/$mode-$ring" --ring "$ring" >"$folder/$mode-$ring.out" 2>&1 &
            churning+=("$!")
        done
        for ring in io_uring epoll; do
            wait "${churning[0]}" || code=1
            churning=("${churning[@]:1}")
            printf '== churn %s on %s\n' "$mode" "$ring"
            cat "$folder/$mode-$ring.out"
        done
    done
    rm -r "$folder"
    return "$code"
}

# churn_daemon RINGWRIGHTD RINGLOAD MODE DURATION FOLDER ARGUMENT... : starts the daemon for FOLDER
# with these arguments, lets ringload misbehave, and ends the daemon.
churn_daemon() {
    local daemon=$1 load=$2 mode=$3 duration=$4 folder=$5 server address scheme='' code=0
    shift 5
    local served=("$folder") path=()
    [ "$mode" = echo ] && served=()
    [ "$mode" = http ] && scheme=http:// path=(--path /large.bin)
    "$daemon" "$mode" "${served[@]}" "$@" --listen 127.0.0.1:0 --idle-timeout 5s >"$folder/.out" &
    server=$!
    until grep -q '^listening ' "$folder/.out"; do
        kill -0 "$server" || return 1
        sleep 0.1
    done
    address=$(sed -n 's,^listening [a-z]*://,,p' "$folder/.out")
    "$load" churn "$scheme$address" --protocol "$mode" --deadline 5s -c 16 -d "$duration" \
        "${path[@]}" --quiet || code=1
    kill -TERM "$server"
    wait "$server" || code=1
    return "$code"
}
