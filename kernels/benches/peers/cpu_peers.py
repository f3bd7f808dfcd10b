"""PyTorch on the CPU over the shapes of examples/cpu_bench.rs: `name <tab> ms <tab> <tab> processor ms`, as that prints them.

Layouts are PyTorch's own best: convolutions in channels_last memory, attention on transposed
projections, temporal attention on [frames, places, heads, dim] with the copies PyTorch needs.
Arguments: an optional filter on names. Threads: KINORA_BENCH_THREADS, 2 unless set.
"""
import os
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(int(os.environ.get("KINORA_BENCH_THREADS", "2")))
WANTED = sys.argv[1] if len(sys.argv) > 1 else ""


def row(name, work):
    if WANTED not in name:
        return
    work()
    best, begun, busy, runs = 1e9, time.perf_counter(), time.process_time(), 0
    while runs < 5 or time.perf_counter() - begun < 0.35:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        runs += 1
    busy = (time.process_time() - busy) / runs
    print(f"{name}\t{best * 1e3:.3f}\t\t{busy * 1e3:.3f}", flush=True)


def picture(n, c, h):
    return torch.randn(n, c, h, h).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def main():
    for n, s, i, o, k, st in [
        (16, 32, 34, 96, 3, 1), (16, 32, 96, 96, 3, 1), (16, 32, 96, 96, 3, 2), (16, 16, 192, 192, 3, 1),
        (16, 8, 256, 256, 3, 1), (16, 8, 448, 256, 3, 1), (16, 16, 448, 192, 3, 1), (16, 32, 288, 96, 3, 1),
        (16, 32, 96, 8, 3, 1), (16, 32, 192, 96, 1, 1), (16, 128, 48, 48, 3, 1), (16, 64, 96, 96, 3, 1),
        (16, 32, 128, 128, 3, 1), (16, 64, 320, 320, 3, 1), (2, 32, 640, 640, 3, 1), (2, 16, 1280, 1280, 3, 1),
        (1, 256, 128, 128, 3, 1), (2, 32, 640, 640, 1, 1),
    ]:
        conv = torch.nn.Conv2d(i, o, k, st, k // 2).to(memory_format=torch.channels_last)
        x = picture(n, i, s)
        row(f"conv{k}x{k}/{st} {i}->{o} {n}x{s}x{s}", lambda: conv(x))
    for n, s, i, o in [(16, 8, 256, 192), (16, 16, 192, 96), (16, 64, 96, 48)]:
        conv = torch.nn.Conv2d(i, o, 3, 1, 1).to(memory_format=torch.channels_last)
        x = picture(n, i, s)
        row(f"upsample+conv {i}->{o} {n}x{s}x{s}", lambda: conv(F.interpolate(x, scale_factor=2, mode="nearest")))
    for m, i, o in [(16384, 96, 96), (4096, 192, 192), (1024, 256, 256), (1024, 1024, 1024), (8192, 320, 1280),
                    (2, 1280, 1280), (77, 768, 768)]:
        linear, x = torch.nn.Linear(i, o), torch.randn(m, i)
        row(f"linear {m}x{i}->{o}", lambda: linear(x))
    for m, i, o in [(16384, 96, 96), (4096, 192, 192), (1024, 1024, 1024), (8192, 320, 1280)]:
        x, w = torch.randn(m, i), torch.randn(o, i).t()
        row(f"gemm crate {m}x{i}->{o}", lambda: x @ w)
    for m, h in [(16384, 192), (4096, 384), (8192, 1280)]:
        x = torch.randn(m, 2 * h)

        def gated():
            value, gate = x.chunk(2, -1)
            return value * F.gelu(gate)

        row(f"geglu {m}x{h}", gated)
    x = torch.randn(16, 64, 64, 320)
    row("silu 16x64x64x320", lambda: F.silu(x))
    for n, s, c in [(16, 32, 96), (16, 16, 192), (16, 8, 256), (16, 64, 320), (1, 128, 96)]:
        norm, x = torch.nn.GroupNorm(32, c), picture(n, c, s)
        row(f"groupnorm+silu {n}x{s}x{s}x{c}", lambda: F.silu(norm(x)))
    for m, c in [(16384, 96), (4096, 192), (8192, 320)]:
        norm, x = torch.nn.LayerNorm(c), torch.randn(m, c)
        row(f"layernorm {m}x{c}", lambda: norm(x))
    for b, h, n, m, d in [(16, 6, 256, 512, 32), (16, 8, 64, 128, 32), (16, 6, 256, 20, 32), (2, 8, 4096, 4096, 40),
                          (2, 8, 4096, 77, 40), (2, 8, 1024, 1024, 80), (1, 8, 4096, 4096, 64)]:
        q = torch.randn(b, n, h, d).transpose(1, 2)
        k, v = (torch.randn(b, m, h, d).transpose(1, 2) for _ in range(2))
        row(f"attention {b}x{h} {n}x{m} d{d}", lambda: F.scaled_dot_product_attention(q, k, v))
    for p, f, h, d in [(1024, 16, 3, 32), (256, 16, 6, 32), (1024, 16, 8, 40)]:
        q, k, v = (torch.randn(f, p, h, d).permute(1, 2, 0, 3) for _ in range(3))
        row(f"temporal {p} places {f} frames {h}x{d}",
            lambda: F.scaled_dot_product_attention(q, k, v).permute(2, 0, 1, 3).contiguous())


def gradients():
    def one(name, q, k, v, grad):
        if WANTED in name:
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            y = F.scaled_dot_product_attention(*leaves)
            row(name, lambda: torch.autograd.grad(y, leaves, grad, retain_graph=True))

    for b, h, n, m, d in [(16, 6, 256, 512, 32), (16, 6, 256, 20, 32), (2, 8, 4096, 77, 40), (2, 8, 1024, 1024, 80),
                          (1, 8, 2048, 2048, 64), (1, 1, 4096, 4096, 64)]:
        q, k, v, grad = (torch.randn(b, t, h, d).transpose(1, 2) for t in (n, m, m, n))
        one(f"gradient {b}x{h} {n}x{m} d{d}", q, k, v, grad)
    for p, f, h, d in [(1024, 16, 3, 32), (256, 16, 6, 32), (1024, 16, 8, 40)]:
        one(f"gradient temporal {p} places {f} frames {h}x{d}", *(torch.randn(f, p, h, d).permute(1, 2, 0, 3) for _ in range(4)))


main()
gradients()
