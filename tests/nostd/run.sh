#!/usr/bin/env bash
# Links hal, all drivers and tcp into a program without std, libc and start files, and starts it.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "skipped: the program is for Linux on x86-64"
    [ -z "${CI:-}" ]; exit
fi
command -v readelf >/dev/null || { echo "readelf is missing (Debian: binutils)" >&2; exit 1; }
cargo build -p pagewire-nostd --profile bare --features image --locked
program=${CARGO_TARGET_DIR:-target}/bare/pagewire-nostd
if readelf -d "$program" 2>/dev/null | grep -q NEEDED; then
    echo "the program asks for a shared library" >&2; exit 1
fi
"$program"
printf 'linked and ran: %s bytes, no library\n' "$(stat -c %s "$program")"
