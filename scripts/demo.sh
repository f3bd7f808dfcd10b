#!/usr/bin/env bash
# Renders the example document with the embedded model and says where the clip is.
set -euo pipefail
kinora=$1
document=$2

"$kinora" validate "$document"
start=$(date +%s)
"$kinora" render "$document" --force
seconds=$(( $(date +%s) - start ))

clip=$(dirname "$document")/$(sed -n 's/.*"path": *"\([^"]*\.mp4\)".*/\1/p' "$document" | head -n 1)
[ -s "$clip" ] || { echo "demo: no clip at $clip" >&2; exit 1; }
echo
echo "Rendered in $seconds s: $(pwd)/$clip ($(( $(stat -c %s "$clip") / 1024 )) KiB)"
echo "Try your own:  $kinora animate photo.jpg --click 0.5,0.5 --prompt \"drift to the left\" -o out.mp4"
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    "$kinora" open "$document"
fi
