#!/usr/bin/env bash
# The servers of examples/ as their user runs them, tried by the kernel's TCP.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ] || ! [ -c /dev/net/tun ] || ! command -v ip >/dev/null; then
    echo "skipped: the examples need root, /dev/net/tun and ip (Debian: iproute2)"
    [ -z "${CI:-}" ]; exit
fi
for example in echo http; do
    lines=$(wc -l < "examples/$example.rs")
    [ "$lines" -lt 100 ] || { echo "examples/$example.rs has $lines lines" >&2; exit 1; }
    timeout -k 5 60 cargo run -q --locked --example "$example" -- --self-test
    echo "$example: $lines lines, and it works"
done
