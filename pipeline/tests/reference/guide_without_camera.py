"""Writes fixtures/mini/guide_without_camera.safetensors: one moving and one gated region, camera at rest.

    python pipeline/tests/reference/guide_without_camera.py

Needs torch and safetensors; the arithmetic is assets/models/kinora-mini/training/guide.py.
"""
import os
import sys

import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../assets/models/kinora-mini/training"))
import guide as G  # noqa: E402
import motions as M  # noqa: E402

torch.manual_seed(11)
b, f, h, w = 2, 3, 32, 40
frame0 = torch.nn.functional.interpolate(torch.rand(b, 3, 6, 7) * 2 - 1, size=(h, w), mode="bicubic").clamp(-1, 1)
grid = M.pixel_grid(h, w)


def blob(cx, cy, r):
    return ((r - ((grid[..., 0] - cx) ** 2 + (grid[..., 1] - cy) ** 2).sqrt()) * 12 + 0.5).clamp(0, 1)[None, None]


mask = torch.cat([blob(-.2, .1, .35), blob(.2, -.1, .3)])
filled, hole = G.fill_and_hole(frame0, mask)
camera = torch.zeros(b, f, 4)
points = G.camera_points(camera, h, w)
phases = torch.tensor([[0.0, 0.4, 1.0]]).repeat(b, 1)
displacement = M.displacement(M.one_hot_kinds([("up_right", "turn_cw"), "flow_left"]), torch.tensor([0.8, 0.6]), phases,
                              M.geometry(mask), points.reshape(b, f, -1, 2)).view(b, f, h, w, 2)
gate = torch.tensor([0.0, 1.0])
picture, alpha, valid = G.build(frame0, mask, filled, hole, points, displacement, gate)
tensors = {"in.frame0": frame0, "in.mask": mask, "in.camera": camera, "in.gate": gate,
           "mid.displacement": displacement, "mid.filled": filled, "mid.hole": hole,
           "out.guide": picture, "out.mask": alpha, "out.validity": valid}
save_file({name: tensor.contiguous() for name, tensor in tensors.items()},
          os.path.join(HERE, "../fixtures/mini/guide_without_camera.safetensors"))
