"""PyTorch's attention on this GPU over the shapes of examples/cuda_bench.rs: fp16, random data, medians of warm runs.

Columns: FlashAttention-2, cuDNN, memory-efficient and written-out attention, milliseconds and TFLOP/s, beside the
two floors (bytes at 3.0 TB/s, products at 790 TFLOP/s). Arguments: an optional filter on names. `--json FILE` keeps
the numbers.
"""
import json
import sys

import torch
import torch.nn.functional as F
import triton.testing
from torch.nn.attention import SDPBackend, sdpa_kernel

ROWS = [
    ("sd15 spatial64", 32, 8, 4096, 4096, 40, False), ("sd15 spatial32", 32, 8, 1024, 1024, 80, False),
    ("sd15 spatial16", 32, 8, 256, 256, 160, False), ("sd15 cross64", 32, 8, 4096, 77, 40, False),
    ("sd15 temporal64", 8192, 8, 16, 16, 40, False), ("sd15 temporal32", 2048, 8, 16, 16, 80, False),
    ("sd15 temporal16", 512, 8, 16, 16, 160, False), ("temporal64 f32", 8192, 8, 32, 32, 40, False),
    ("temporal64 f64", 4096, 8, 64, 64, 40, False), ("sparse-causal64", 16, 8, 4096, 8192, 40, False),
    ("dynami spatial", 32, 5, 2560, 2560, 64, False), ("dynami temporal", 5120, 5, 16, 16, 64, False),
    ("vision tower 16k", 1, 16, 16384, 16384, 72, False), ("dit 32k d128", 1, 24, 32768, 32768, 128, False),
    ("prefill 16k", 1, 12, 16384, 16384, 128, True), ("4k d64", 4, 32, 4096, 4096, 64, False),
    ("16k d64", 1, 32, 16384, 16384, 64, False), ("4k d128", 4, 16, 4096, 4096, 128, False),
    ("16k d128", 1, 16, 16384, 16384, 128, False), ("16k d128 causal", 1, 16, 16384, 16384, 128, True),
]
PEERS = {
    "fa2": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}


def median(work):
    try:
        work()
        torch.cuda.synchronize()
        return triton.testing.do_bench(work, warmup=40, rep=120, return_mode="median")
    except RuntimeError:
        return None


def main():
    arguments = sys.argv[1:]
    keep = arguments[arguments.index("--json") + 1] if "--json" in arguments else None
    wanted = arguments[0] if arguments and not arguments[0].startswith("--") else ""
    rows = []
    for name, b, h, n, m, d, causal in ROWS:
        if wanted not in name:
            continue
        q = torch.randn(b, h, n, d, device="cuda", dtype=torch.float16)
        k, v = (torch.randn(b, h, m, d, device="cuda", dtype=torch.float16) for _ in range(2))
        flops = 4 * b * h * n * m * d / (2 if causal else 1)
        row = {"shape": name, "floor_bytes_ms": 4 * b * h * d * (n + m) / 3.0e9, "floor_mma_ms": flops / 7.9e11}
        for peer, backend in PEERS.items():
            if peer == "math" and b * h * n * m > 3e9:
                row[peer] = None
                continue
            with sdpa_kernel(backend):
                row[peer] = median(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal))
        rows.append(row)
        cells = " ".join(f"{p} {row[p]:7.3f} ({flops / row[p] / 1e9:4.0f})" if row[p] else f"{p}    --        " for p in PEERS)
        print(f"{name:18} bytes {row['floor_bytes_ms']:6.3f} mma {row['floor_mma_ms']:6.3f} | {cells}", flush=True)
        del q, k, v
        torch.cuda.empty_cache()
    if keep:
        with open(keep, "w") as file:
            json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}, file, indent=1)


main()
