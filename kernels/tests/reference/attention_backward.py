"""Gradients of PyTorch's attention on random shapes, for tests/backward.rs and tests/cuda_backward.rs.

Made with torch 2.15.0 (CPU, f64, the plain formula that scaled_dot_product_attention documents checked against
it), safetensors 0.8. Run from the repository: python kernels/tests/reference/attention_backward.py
"""
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

# Batch, heads, heads of keys, queries, keys, head dimension, mask.
CASES = [
    (2, 1, 1, 16, 16, 40, None),
    (6, 2, 2, 16, 16, 8, None),
    (1, 1, 1, 33, 77, 40, None),
    (1, 1, 1, 70, 70, 24, "causal"),
    (1, 4, 2, 20, 24, 16, None),
    (2, 2, 2, 19, 23, 8, "bias"),
    (1, 1, 1, 35, 70, 80, None),
]


def main():
    torch.manual_seed(20261127)
    out = {}
    for index, (b, h, kv, n, m, d, mask) in enumerate(CASES):
        q, k, v = (torch.randn(b, heads, tokens, d).double().requires_grad_()
                   for heads, tokens in [(h, n), (kv, m), (kv, m)])
        grad = torch.randn(b, h, n, d)
        bias = torch.randn(h, n, m).double() if mask == "bias" else None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=mask == "causal", enable_gqa=h != kv)
        y.backward(grad.double())
        named = {"q": q, "k": k, "v": v, "grad": grad, "out": y, "dq": q.grad, "dk": k.grad, "dv": v.grad}
        if bias is not None:
            named["bias"] = bias
        if mask == "causal":
            named["causal"] = torch.ones(1)
        out |= {f"{index}.{name}": x.detach().float().contiguous() for name, x in named.items()}
    path = Path(__file__).parents[1] / "fixtures" / "attention_backward.safetensors"
    save_file(out, path)
    print(path, path.stat().st_size)


main()
