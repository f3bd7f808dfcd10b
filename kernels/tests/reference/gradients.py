"""Writes kernels/tests/fixtures/gradients.safetensors: PyTorch's results and gradients of our operations.

Pictures are channels-last, as the kernels have them. For each case: `CASE.NAME` an operand,
`CASE.out` the result, `CASE.weight_of_out` what the result is multiplied with before it is added up,
`CASE.grad.NAME` the gradient of that sum. Needs torch and safetensors. Run from anywhere:
python gradients.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "gradients.safetensors"
generator = torch.Generator().manual_seed(5)
tensors = {}


def case(name, run, **shapes):
    operands = {key: torch.randn(shape, generator=generator).requires_grad_() for key, shape in shapes.items()}
    out = run(**operands)
    weight = torch.randn(out.shape, generator=generator)
    (out * weight).sum().backward()
    tensors.update({f"{name}.{key}": x.detach() for key, x in operands.items()})
    tensors.update({f"{name}.grad.{key}": x.grad for key, x in operands.items()})
    tensors.update({f"{name}.out": out.detach(), f"{name}.weight_of_out": weight})


def first(x):
    return x.movedim(-1, 1)


def last(x):
    return x.movedim(1, -1)


def norm(x, weight, bias):
    return last(F.group_norm(first(x), 5, weight, bias, 1e-5))


case("group_norm_silu", lambda x, w, b: F.silu(norm(x, w, b)), x=(3, 7, 4, 20), w=(20,), b=(20,))
case("group_norm_film",
     lambda x, w, b, scale, shift: F.silu(norm(x, w, b) * (1 + scale[:, None]) + shift[:, None]),
     x=(2, 11, 20), w=(20,), b=(20,), scale=(2, 20), shift=(2, 20))
case("group_norm_added",
     lambda x, w, b, added: F.silu(norm(x + added.repeat_interleave(2, 0)[:, None], w, b)),
     x=(4, 9, 20), w=(20,), b=(20,), added=(2, 20))
case("layer_norm", lambda x, w, b: F.layer_norm(x, (37,), w, b, 1e-5), x=(2, 5, 37), w=(37,), b=(37,))
case("silu", lambda x: F.silu(4 * x), x=(9, 13))
case("gelu", lambda x: F.gelu(4 * x), x=(9, 13))
case("relu", lambda x: F.relu(x), x=(9, 13))
case("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x), x=(9, 13))
case("geglu", lambda x: x.chunk(2, -1)[0] * F.gelu(x.chunk(2, -1)[1]), x=(5, 26))
case("softmax", lambda x: x.softmax(-1), x=(5, 26))
case("linear", lambda x, w, b, r: F.linear(x, w, b) + r, x=(3, 5, 11), w=(17, 11), b=(17,), r=(3, 5, 17))
case("conv2d", lambda x, w, b: last(F.conv2d(first(x), w, b, 1, 1)), x=(2, 5, 7, 6), w=(9, 6, 3, 3), b=(9,))
case("conv2d_stride", lambda x, w, b: last(F.conv2d(first(x), w, b, 2, 1)),
     x=(2, 8, 7, 6), w=(9, 6, 3, 3), b=(9,))
case("conv2d_upsampled",
     lambda x, w, b: last(F.conv2d(F.interpolate(first(x), scale_factor=2.0, mode="nearest"), w, b, 1, 1)),
     x=(2, 3, 4, 6), w=(9, 6, 3, 3), b=(9,))
save_file({name: x.contiguous() for name, x in tensors.items()}, OUT)
print(len(tensors), OUT.stat().st_size)
