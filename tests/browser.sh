#!/usr/bin/env bash
# A browser shows a page with images that `pagewire serve` serves: makes docs/serve-chromium.png.
# Not part of ./test: Chromium takes 400 MB.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    cat <<'TEXT'
Usage: tests/browser.sh [FILE]

Serves a made-up site over a TAP interface in a network namespace that goes away afterwards, has
Debian's Chromium (apt install chromium) show it without a screen, writes what it shows to FILE
(docs/serve-chromium.png), and checks that it has asked for every part of it and got it whole.
Needs root, `cargo build -p pagewire-cli` before, and python3.
TEXT
    exit 0
fi
picture=$(realpath -m "${1:-docs/serve-chromium.png}")
pagewire=$(realpath "${CARGO_TARGET_DIR:-target}/debug/pagewire")
for program in chromium python3 ip unshare; do
    command -v "$program" >/dev/null || { echo "browser.sh: $program is missing" >&2; exit 2; }
done
[ -x "$pagewire" ] || { echo "browser.sh: build it first: cargo build -p pagewire-cli" >&2; exit 2; }

if [ -z "${PAGEWIRE_BROWSER:-}" ]; then
    place=$(mktemp -d)
    trap 'rm -rf "$place"' EXIT
    PAGEWIRE_BROWSER=$place unshare --net bash tests/browser.sh "$picture"
    exit
fi

place=$PAGEWIRE_BROWSER
mkdir -p "$place/site/images"
python3 - "$place/site" <<'PYTHON'
import struct, sys, zlib

site = sys.argv[1]


def png(path, width, height, colour):
    """A picture whose noise no compression takes away: a hundred kilobytes."""
    state, rows = 1, bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            noise = (state >> 16) & 7
            rows += bytes(min(255, part * (x + y) // (width + height) + noise) for part in colour)
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(chunk(b"IDAT", zlib.compress(bytes(rows), 6)) + chunk(b"IEND", b""))


colours = [(255, 80, 40), (40, 200, 90), (60, 110, 255), (240, 200, 40), (190, 70, 220), (60, 210, 220)]
for index, colour in enumerate(colours):
    png(f"{site}/images/{index}.png", 300, 200, colour)
with open(f"{site}/images/mark.svg", "w") as file:
    file.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 60"><rect width="60" height="60" rx="12" '
               'fill="#223"/><path d="M14 14h32v14H14zM14 32h32v14H14z" fill="#8cf"/></svg>')
with open(f"{site}/style.css", "w") as file:
    file.write("body{font:18px sans-serif;margin:24px;background:#f4f4f8;color:#223}"
               "h1 img{width:48px;vertical-align:middle}"
               "figure{display:inline-block;margin:6px}figure img{width:300px;border-radius:8px}")
with open(f"{site}/index.html", "w") as file:
    file.write('<!doctype html><html lang="en"><meta charset="utf-8"><title>Pagewire</title>'
               '<link rel="stylesheet" href="style.css"><link rel="icon" href="images/mark.svg">'
               '<h1><img src="images/mark.svg" alt=""> Served by pagewire serve</h1>'
               "<p>Every byte of it was fetched by a NIC (our model of the 82599) from the pages of its file.</p>")
    for index in range(len(colours)):
        file.write(f'<figure><img src="images/{index}.png" alt="{index}"></figure>')
PYTHON

ip link set lo up
"$pagewire" serve "$place/site" --listen 10.0.0.2:80 --wire tap:pagewire0 --json >"$place/log" &
server=$!
until grep -qs listening "$place/log"; do sleep 0.1; kill -0 "$server"; done
ip addr add 10.0.0.1/24 dev pagewire0
ip link set pagewire0 up
HOME=$place timeout 120 chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
    --user-data-dir="$place/profile" --hide-scrollbars --window-size=1000,640 --timeout=15000 \
    --screenshot="$place/picture.png" http://10.0.0.2/ >"$place/browser" 2>&1 ||
    { cat "$place/browser" >&2; exit 1; }
kill -INT "$server"
wait "$server" || [ $? = 130 ]
python3 - "$place/log" <<'PYTHON'
import json, sys

lines = [json.loads(line) for line in open(sys.argv[1])]
requests = [line for line in lines if line["event"] == "request"]
parts = {"/", "/style.css", "/images/mark.svg", *(f"/images/{index}.png" for index in range(6))}
whole = {line["target"] for line in requests if line["status"] == 200 and line["delivered"] == line["bytes"]}
print(f"{len(requests)} requests, {sum(line['delivered'] for line in requests)} bytes")
if parts - whole:
    sys.exit(f"browser.sh: not shown: {parts - whole}")
end = lines[-1]
print(f"{end['shared_bytes']} bytes shared, {end['copied_bytes']} copied")
if end["copied_bytes"] != 0 or end["shared_bytes"] < end["bytes"]:
    sys.exit("browser.sh: the page says that every byte came from its file")
PYTHON
cp "$place/picture.png" "$picture"
echo "wrote $picture"
