#!/usr/bin/env bash
# The servers of examples/ as their user runs them, tried by the kernel's TCP.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ] || ! [ -c /dev/net/tun ] || ! command -v ip >/dev/null; then
    echo "skipped: the examples need root, /dev/net/tun and ip (Debian: iproute2)"
    [ -z "${CI:-}" ]; exit
fi
cargo build --locked --example echo --example http
for example in echo http; do
    lines=$(wc -l < "examples/$example.rs")
    [ "$lines" -lt 100 ] || { echo "examples/$example.rs has $lines lines" >&2; exit 1; }
    timeout -k 5 60 "${CARGO_TARGET_DIR:-target}/debug/examples/$example" --self-test || {
        echo "$example --self-test: status $?" >&2; exit 1; }
    echo "$example: $lines lines, and it works"
done
