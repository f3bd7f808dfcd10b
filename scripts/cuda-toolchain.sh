#!/usr/bin/env bash
# Lays out what `--features cuda` needs on a machine without CUDA, GPU or root: nvcc 13.0 and its
# headers from PyPI wheels, link-time stand-ins for the CUDA libraries (the program opens the real
# ones at the first call and starts without them), and candle-kernels without its GGUF library.
#
#   scripts/cuda-toolchain.sh [DEST]          about 300 MB, half a minute
#   source DEST/env.sh
#   cargo --config DEST/cargo.toml build -p kinora --features cuda
#
# With a CUDA toolkit installed none of this is needed: `cargo build --features cuda` finds nvcc by
# $NVCC, $CUDA_HOME, $CUDA_PATH or PATH. Needs python3 with venv, gcc and ar.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dest=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/kinora/cuda-13.0}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)

[ -x "$dest/venv/bin/pip" ] || python3 -m venv "$dest/venv"
# Each wheel unpacks into nvidia/cu13/{bin,include,lib,nvvm}; together they are one CUDA_HOME.
"$dest/venv/bin/pip" install -q --disable-pip-version-check --no-deps --upgrade --target "$dest/site" \
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
home="$dest/site/nvidia/cu13"
chmod +x "$home"/bin/* "$home"/nvvm/bin/*
ln -sfn lib "$home/lib64"

(cd "$here/.." && cargo fetch --locked --quiet)
registry=("${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/)
source_of() { for r in "${registry[@]}"; do [ -d "$r$1" ] && echo "$r$1" && return; done; }
version_of() { awk -v n="\"$1\"" '$1=="name" && $3==n {f=1} f && $1=="version" {gsub(/"/,"",$3); print $3; exit}' "$here/../Cargo.lock"; }
cudarc=$(source_of "cudarc-$(version_of cudarc)")
candle=$(source_of "candle-kernels-$(version_of candle-kernels)")
python3 "$here/cuda_shims.py" "$cudarc" "$home" "$dest/shims"
python3 "$here/trim_candle_kernels.py" "$candle" "$dest/candle-kernels"

cat > "$dest/env.sh" <<END
export CUDA_HOME="$home" NVCC="$home/bin/nvcc"
# candle's own kernels as PTX that the driver compiles for any card from Ampere on.
export CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-80}
export PATH="$home/bin:\$PATH"
# gcc hands this to the linker: no RUSTFLAGS, so nothing else is rebuilt.
export LIBRARY_PATH="$dest/shims\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
export CUDAFORGE_THREADS=\${CUDAFORGE_THREADS:-\$(nproc)}
END
echo "paths = [\"$dest/candle-kernels\"]" > "$dest/cargo.toml"
"$home/bin/nvcc" --version | grep release
echo "ready: source $dest/env.sh"
