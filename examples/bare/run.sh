#!/usr/bin/env bash
# Builds the bare-metal image, boots it in QEMU, and judges the transfer. `run.sh --help` says more.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'TEXT'
Usage: examples/bare/run.sh [--nic NAME] [--max-fragments N] [--check]

Builds an image that needs no operating system, boots it in QEMU (no KVM, no root), lets it send
the file that is linked into it to a program of this machine, and compares the digests. Prints the
size of the image, the table that the image printed on its serial port, and the time from the
start of QEMU to its end.

  --nic NAME          what QEMU puts in the slot; the image finds out which it is:
                        e1000e                Intel 82574L (the default)
                        virtio                virtio-net that is also a legacy device (1af4:1000)
                        virtio-modern         virtio-net that is not (1af4:1041)
                        all                   one after the other
  --max-fragments N   the NIC may gather N fragments a frame, header included (default: its own
                      bound): with 2 the page budget binds, with 1 everything is copied
  --check             runs with all of them (unless --nic says which), then boots images that fail
                      on purpose and looks at their exit status

Needs cargo, a C linker, and QEMU: the one that PAGEWIRE_QEMU names, else what tests/lab/get-qemu
has fetched. PAGEWIRE_QEMU=none skips all of it, which is a failure if CI is set.

Exit status: 0 if the file arrived, more than 95 % of it was shared (unless N is 1 or 2), and the
image ended with the status that means success; else 1, or 2 for a wrong option.
TEXT
}

fail() { echo "run.sh: $1" >&2; exit "${2:-1}"; }

every_nic=(e1000e virtio virtio-modern)
bound="" check=no nics=()
while [ $# -gt 0 ]; do
    case "$1" in
        -h|--help) usage; exit 0 ;;
        --max-fragments)
            [[ "${2:-}" =~ ^[1-9][0-9]{0,4}$ ]] || fail "--max-fragments takes a number from 1" 2
            bound=$2; shift 2 ;;
        --nic)
            case "${2:-}" in
                e1000e|virtio|virtio-modern) nics=("$2") ;;
                all) nics=("${every_nic[@]}") ;;
                *) fail "--nic takes e1000e, virtio, virtio-modern or all" 2 ;;
            esac
            shift 2 ;;
        --check) check=yes; shift ;;
        *) fail "unknown option $1 (see run.sh --help)" 2 ;;
    esac
done
if [ ${#nics[@]} = 0 ]; then
    nics=(e1000e)
    [ "$check" = no ] || nics=("${every_nic[@]}")
fi

if [ "${PAGEWIRE_QEMU:-}" = none ]; then
    echo "skipped: bare metal (PAGEWIRE_QEMU=none)"
    [ -z "${CI:-}" ]; exit
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "skipped: bare metal (it is built with the compiler of Linux on x86-64)"
    [ -z "${CI:-}" ]; exit
fi
qemu=${PAGEWIRE_QEMU:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/pagewire/qemu/bin/qemu-system-x86_64}
command -v "$qemu" >/dev/null ||
    fail "no QEMU: run tests/lab/get-qemu, or name a qemu-system-x86_64 with PAGEWIRE_QEMU"
for tool in cargo cc timeout awk; do
    command -v "$tool" >/dev/null || fail "$tool is missing"
done

cargo build -p pagewire-bare --profile bare --features image --locked
built=${CARGO_TARGET_DIR:-target}/bare
image=$built/pagewire-bare

# The promise of the README: what a kernel has to write fits one short file.
room=examples/bare
lines=$(wc -l < $room/src/platform.rs)
[ "$lines" -lt 200 ] || fail "platform.rs has $lines lines; it must stay below 200"
for file in platform pci clock file; do
    counted=$(wc -l < $room/src/$file.rs)
    grep -qF "| \`$file.rs\` | $counted |" $room/README.md ||
        fail "$file.rs has $counted lines, and the README says something else"
done
echo "platform traits: $lines lines"
if command -v size >/dev/null; then
    size -A "$image" | awk '/^\.(text|rodata|data|bss) / { line = line ", " $1 " " $2 }
        END { print "image: " substr(line, 3) " bytes (the file is in .rodata)" }'
fi
echo "image: $(stat -c %s "$image") bytes with debug information"

scratch=$(mktemp -d)
: >"$scratch/receiver"
children=()
at_end() {
    local status=$?
    trap - EXIT
    # `timeout` hands the signal on to what it runs.
    [ ${#children[@]} = 0 ] || kill "${children[@]}" 2>/dev/null || true
    wait
    rm -rf "$scratch"
    exit "$status"
}
trap at_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Chooses a NIC for QEMU: sets `device`, and `name` to what the image must call it.
plug_in() {
    case "$1" in
        e1000e) device=e1000e name="e1000e 82574L" ;;
        virtio) device=virtio-net-pci name="virtio-net transitional" ;;
        virtio-modern) device=virtio-net-pci,disable-legacy=on name="virtio-net" ;;
    esac
}

# Boots the image with a command line; its serial port goes to $scratch/serial. Sets `status`.
boot() {
    status=0
    timeout -k 5 90 "$qemu" -machine q35 -accel tcg -m 128M -kernel "$image" -append "$*" \
        -nodefaults -display none -serial stdio -no-reboot \
        -device isa-debug-exit,iobase=0xf4,iosize=4 \
        -netdev user,id=net -device "$device,netdev=net" \
        </dev/null >"$scratch/serial" 2>"$scratch/qemu" &
    children+=($!)
    # In the background, so that a signal to this script is not held up by it.
    wait $! || status=$?
}

# Starts the other end. Sets `receiver` and `port`.
listen() {
    : >"$scratch/receiver"
    timeout -k 5 100 "$built/pagewire-bare-receiver" >"$scratch/receiver" &
    receiver=$!
    children+=("$receiver")
    local turn
    for turn in $(seq 1200); do
        port=$(sed -n 's/^port //p' "$scratch/receiver")
        [ -z "$port" ] || return 0
        sleep 0.05
    done
    fail "the receiver did not start ($turn turns)"
}

row() { sed -n "s/^$1  *//p" "$scratch/serial"; }
bytes() { row "$1" | sed 's/ .*//; s/,//g'; }
show() { cat "$scratch/serial" "$scratch/qemu"; sed '/^port /d' "$scratch/receiver"; }

transfer() {
    listen
    local begin end judged=0
    begin=$(date +%s%N)
    boot "port=$port${bound:+ max_fragments=$bound}"
    end=$(date +%s%N)
    [ "$status" = 33 ] || kill "$receiver" 2>/dev/null || true
    wait "$receiver" || judged=$?
    show
    printf 'from the start of QEMU to its end: %d ms\n' $(((end - begin) / 1000000))
    [ "$status" = 33 ] || fail "QEMU ended with status $status instead of 33"
    [ "$judged" = 0 ] || fail "the receiver ended with status $judged"
    [ "$(row through)" = "$name" ] || fail "the image took $device for \"$(row through)\""
    local digest shared copied
    digest=$(row "SHA-256 of the file")
    [ -n "$digest" ] && grep -qx "equal $digest" "$scratch/receiver" || fail "the digests differ"
    shared=$(bytes "bytes shared") copied=$(bytes "bytes copied")
    if [ "${bound:-64}" -gt 2 ]; then
        [ $((shared * 100)) -gt $(((shared + copied) * 95)) ] || fail "not more than 95 % is shared"
        [ "$(bytes "  of 3 fragments")" -gt 0 ] || fail "no frame gathered two pages"
    elif [ "$copied" = 0 ]; then
        fail "$bound fragments a frame, and nothing was copied"
    fi
    echo "the digests are equal"
}

# Whether a failure is seen as one: the status that QEMU must end with, the command line, and what
# the serial port must say.
provoked() {
    local must=$1 line=$2 said=$3
    boot "$line"
    if [ "$status" != "$must" ] || ! grep -qF "$said" "$scratch/serial"; then
        show
        fail "\"$line\" ended with status $status instead of $must, or without \"$said\""
    fi
    echo "$device, \"$line\": status $status, as it must be"
}

for nic in "${nics[@]}"; do
    echo "--nic $nic"
    plug_in "$nic"
    transfer
done
if [ "$check" = yes ]; then
    provoked 35 "port=1" "failed: " # nobody listens: refused
    provoked 35 "" "failed: no port"
    provoked 37 "port=1 provoke=panic" "panicked"
    provoked 39 "port=1 provoke=write" "exception 14"
    listen
    provoked 35 "port=$port provoke=digest" "different: "
    if wait "$receiver"; then fail "the receiver took a wrong digest for right"; fi
    echo "a wrong digest is noticed"
    device=virtio-net-pci,disable-modern=on,disable-legacy=off
    provoked 35 "port=1" "failed: the device has no virtio 1.x interface"
    device=e1000 # the 82540EM, which no driver here takes
    provoked 35 "port=1" "failed: there is no NIC; known are 8086:10d3"
fi
