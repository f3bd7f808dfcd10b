"""Runs examples/cpu_bench and cpu_peers.py in turn and prints a Markdown table.

From every column the least over the rounds. On a busy machine compare processor times with one
thread: the clock then measures the neighbours, and threads that spin at a barrier wait for them.

python compare.py PATH_OF_CPU_BENCH THREADS ROUNDS [FILTER] [--json FILE]

`--json` keeps PyTorch's times for `kinora bench attention --peers`.
"""
import json
import os
import subprocess
import sys
from pathlib import Path


def run(command, threads, best):
    env = dict(os.environ, KINORA_BENCH_THREADS=threads, OMP_NUM_THREADS=threads, RAYON_NUM_THREADS=threads)
    for line in subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines():
        name, ms, _, busy = line.split("\t")
        old = best.get(name, (float("inf"), float("inf")))
        best[name] = (min(old[0], float(ms)), min(old[1], float(busy)))


def main():
    bench, threads, rounds, *rest = sys.argv[1:]
    keep = rest.pop(rest.index("--json") + 1) if "--json" in rest else None
    rest = [word for word in rest if word != "--json"]
    ours, peer = {}, {}
    for _ in range(int(rounds)):
        run([bench, *rest], threads, ours)
        run([sys.executable, str(Path(__file__).with_name("cpu_peers.py")), *rest], threads, peer)
    print("| shape | ours ms | torch ms | torch / ours | ours cpu ms | torch cpu ms | torch / ours |\n|---|---|---|---|---|---|---|")
    for name in ours:
        if name in peer:
            cells = [f"{a:.3f} | {b:.3f} | {b / a:.2f}" for a, b in zip(ours[name], peer[name])]
            print(f"| {name} | {cells[0]} | {cells[1]} |")
    if keep:
        rows = [{"shape": name, "torch": ms} for name, (ms, _) in peer.items()]
        with open(keep, "w") as file:
            json.dump({"threads": int(threads), "rows": rows}, file, indent=1)


main()
