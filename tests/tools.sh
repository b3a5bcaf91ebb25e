#!/usr/bin/env bash
# Runs a command that needs programs which Rust and Python do not bring.
#
#   tests/tools.sh PROGRAM… -- COMMAND…
#
# On Debian root gets what is missing by apt-get. Where a program cannot be had this fails and says what to install; `make test`
# has it noted in the file LEFT_OUT instead, and goes on.
set -euo pipefail

# Where Debian keeps servers, and not everybody looks.
export PATH=$PATH:/usr/sbin:/sbin

programs=()
while [ "$1" != -- ]; do
    programs+=("$1")
    shift
done
shift

missing() {
    local missing=()
    for program in "${programs[@]}"; do
        type -P "$program" > /dev/null || missing+=("$program")
    done
    echo "${missing[*]}"
}

# Each of the programs is a package of the same name. Another run of this may be at it.
get() (
    exec 9< "$0"
    flock 9
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        # Otherwise a server runs as soon as it is installed, and on every address.
        trap 'rm -f $policy' EXIT
        install -m 755 /dev/stdin $policy <<< $'#!/bin/sh\nexit 101' || exit
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@" > /dev/null
)

if [ -n "$(missing)" ] && [ -e /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    echo "Installing $(missing) …"
    # What still lacks then is seen below.
    get $(missing) || true
fi

if [ -n "$(missing)" ]; then
    why="To run \`$*\`, install $(missing)."
    if [ -z "${LEFT_OUT:-}" ]; then
        echo "$why" >&2
        exit 1
    fi
    echo "$why" >> "$LEFT_OUT"
    exit
fi

exec "$@"
