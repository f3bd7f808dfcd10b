#!/usr/bin/env bash
# Renders the twelve strips in ../sheet: photographs never trained on, one click, a few words.
# usage: contact_sheet.sh KINORA PHOTOS   (PHOTOS: ../../../samples/held-out and the four photographs
# that assets/LICENSES.md names for the sheet but that are not kept here)
set -euo pipefail
kinora=$1 photos=$2
out=$(cd "$(dirname "$0")/../sheet" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

while IFS='|' read -r name click prompt magnitude; do
    [ -f "$photos/$name.jpg" ] || { echo "contact_sheet: no $photos/$name.jpg, skipped" >&2; continue; }
    "$kinora" animate "$photos/$name.jpg" --click "$click" --prompt "$prompt" --magnitude "$magnitude" \
        --size 384 --progress none --force -o "$work/$name.mp4" >/dev/null
    ffmpeg -nostdin -v error -y -i "$work/$name.mp4" \
        -vf "select='not(mod(n,5))',scale=-2:256,tile=4x1:padding=4" -frames:v 1 -q:v 4 "$out/$name.jpg"
    echo "$name: \"$prompt\" ($magnitude), click $click"
done <<'CASES'
raccoon|0.55,0.5|move to the left|0.6
bee|0.33,0.45|the bee flies up|0.6
citrus|0.31,0.52|spin clockwise|0.8
bridge|0.4,0.88|the water ripples|0.8
nuthatch|0.47,0.55|the bird hops up and down|0.6
picos-de-europa|0.2,0.18|the cloud floats to the right|0.7
chelsea|0.5,0.5|the cat comes closer|0.5
coffee|0.5,0.35|slide to the right|0.6
ladybird|0.7,0.5|crawl to the left|0.5
yellow-flower|0.45,0.6|sway in the wind|0.8
castle|0.5,0.15|clouds drift to the right|0.6
chameleon|0.6,0.3|crawl to the right|0.4
CASES
