# Shared by .ci/run and .ci/full: installs Debian packages, runs named steps and prints their times.

# install PROGRAM=PACKAGE... : installs the packages of the programs that are missing.
install() {
    local wanted=() pair
    for pair in "$@"; do
        PATH="$PATH:/usr/sbin" command -v "${pair%%=*}" >/dev/null || wanted+=("${pair#*=}")
    done
    [ "${#wanted[@]}" -eq 0 ] && return
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${wanted[@]}"
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
