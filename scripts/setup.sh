#!/usr/bin/env bash
# Installs what building and testing Kinora needs on a Debian 12 (or newer, or Ubuntu) machine that
# has a Rust toolchain. Does nothing where everything is already there. Uses sudo when not root.
set -euo pipefail

packages=(
    build-essential pkg-config cmake
    # FFmpeg 5.1 or newer, and libclang for its bindings
    libavcodec-dev libavformat-dev libavutil-dev libswscale-dev libswresample-dev libclang-dev
    # the window's sound
    libasound2-dev
    # the command-line ffprobe is the second opinion of the media tests
    ffmpeg
)

# `setup.sh --tests` adds a renderer without a graphics card for the pictures of the window, the test
# runner and the licence checker.
if [ "${1:-}" = "--tests" ]; then
    packages+=(mesa-vulkan-drivers libvulkan1)
fi

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "setup: not a Debian system; install the equivalents of: ${missing[*]}" >&2
        exit 1
    fi
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null; then
    echo "setup: no Rust toolchain found; install Rust 1.95 or newer from https://rustup.rs" >&2
    exit 1
fi

if [ "${1:-}" = "--tests" ]; then
    cargo nextest --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-nextest
    cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny
fi
