#!/usr/bin/env bash
# The demo as its user runs it, in release mode: 256 MiB to both peers, and losses. Prints a row
# for each run; ends with status 1 at the first that is not as it must be.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p pagewire-cli --locked
program=${CARGO_TARGET_DIR:-target}/release/pagewire
report=$(mktemp)
trap 'rm -f "$report"' EXIT

value() { # the first number of this name in the report
    sed -n "s/^ *\"$1\": \([0-9.]*\),\{0,1\}$/\1/p" "$report" | head -n 1
}

check() { # how much must be shared (all, some, none), options of the demo…
    local must=$1; shift
    local status=0
    timeout 100 "$program" demo --json "$@" > "$report" || status=$?
    if [ "$status" != 0 ] || ! grep -q '"equal": true' "$report"; then
        cat "$report" >&2
        echo "demo $*: status $status, or the digests differ" >&2; exit 1
    fi
    local shared copied name kind
    shared=$(value shared)
    copied=0
    for name in to_rescue over_budget no_gather too_short; do
        copied=$((copied + $(value "copied_$name")))
    done
    kind=some
    if [ "$copied" = 0 ]; then kind=all; fi
    if [ "$shared" = 0 ]; then kind=none; fi
    if [ "$kind" != "$must" ] || [ "$(value pinned_now)" != 0 ]; then
        cat "$report" >&2
        echo "demo $*: must share $must, and give back every page" >&2; exit 1
    fi
    printf '%-76s  shared %4s  %5.0f MB/s  digests equal\n' \
        "$*" "$kind" "$(value megabytes_per_second)"
}

check all --size 256M
check some --size 256M --max-fragments 2
check none --size 256M --max-fragments 1
check all --size 256M --no-checksum
check all --size 16M --loss 1
check all --size 16M --loss 5
check all --size 256M --nic ixgbe
check all --size 256M --nic ixgbe --no-segmentation
check all --size 64M --nic ixgbe --slice 700
check some --size 64M --nic ixgbe --max-fragments 2 --no-segmentation
check all --size 64M --nic ixgbe --queues 4
check all --size 16M --nic ixgbe --queues 4 --connections 9 --any-port
check all --size 16M --nic ixgbe --queues 4 --loss 1
check all --size 256M --nic virtio
check all --size 256M --nic virtio --no-segmentation
check all --size 256M --device model:virtio,packed=on
check all --size 64M --nic virtio --slice 700 --tx-descriptors 64
check all --size 16M --nic virtio --loss 1
check all --size 64M --nic virtio --queues 4
if [ "$(id -u)" = 0 ] && [ -c /dev/net/tun ]; then
    check all --size 256M --peer linux
    check some --size 256M --peer linux --max-fragments 2
    check all --size 16M --peer linux --loss 1
    check all --size 4M --peer linux --loss 5
    check all --size 256M --peer linux --nic ixgbe
    check all --size 64M --peer linux --nic ixgbe --queues 4
    if [ "${PAGEWIRE_QEMU:-}" = none ]; then
        echo "skipped: --device qtest:virtio needs QEMU"
    else
        check all --size 256M --peer linux --device qtest:virtio
        check all --size 64M --peer linux --device qtest:virtio --slice 700 --tx-descriptors 64
    fi
elif [ -n "${CI:-}" ]; then
    echo "CI must be root and have /dev/net/tun for the demo with --peer linux" >&2; exit 1
else
    echo "skipped: --peer linux needs root and /dev/net/tun"
fi
