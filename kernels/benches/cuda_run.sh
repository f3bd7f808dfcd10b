#!/usr/bin/env bash
# Everything that needs a card, in one go: the case table, the sanitizer on part of it, our bench, the peers.
#
#   cuda_run.sh TEST_BINARY BENCH_BINARY [RESULTS_FOLDER]
#
# The binaries are `cargo test --no-run -p kinora-kernels --features cuda --test cuda` and
# `cargo build -p kinora-kernels --features cuda --example cuda_bench`. The peers need python3 with PyTorch.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
test=$1 bench=$2 results=${3:-.}
mkdir -p "$results"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
# Where a PyTorch wheel keeps cuBLAS and cuRAND, for machines without a toolkit.
wheels=$(python3 -c 'import nvidia, os; print(":".join(os.path.join(p, "cu13/lib") for p in nvidia.__path__))' 2>/dev/null)
export CUDASHIM_PATH=${CUDASHIM_PATH:-$wheels}
for table in time_axes text frames nan mixed odd_sizes every_head; do
  timeout 120 "$test" "$table" --nocapture > "$results/$table.log" 2>&1
  echo "$table: exit $?, $(grep -c '^ok' "$results/$table.log") cases passed"
  grep -v '^ok' "$results/$table.log" | grep -A3 -E 'panicked|skipped' | head -5
done
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck; do
    timeout 150 "$sanitizer" --tool "$tool" --error-exitcode 9 "$test" odd_sizes --nocapture > "$results/$tool.log" 2>&1
    echo "$tool: exit $?, $(tail -1 "$results/$tool.log")"
  done
fi
timeout 150 "$bench" --json "$results/ours.json"
timeout 200 python3 "$here/peers/cuda_peers.py" --json "$results/peers.json"
