"""Motion-field net: caption, magnitude, time and mask -> displacement of every point.

The field is D(P) = sum_k C_k(t) basis_k(P) + free(P), in the field units of `motions.py`.
C_k(t) = sum_j W_kj(caption, mask geometry) T_j(s, m): the caption chooses weights, time and magnitude enter through the
fixed functions T, all 0 at s = 0 and at m = 0, so frame 0 is exact and the answer to the magnitude is
monotone by construction. `free` is a small FiLM convolution net over the mask at 20 x 20 cells for what
the basis cannot say. A gate says whether the outline moves or only the texture inside it.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from motions import WAVE_X, WAVE_Y

GRID, SPAN = 20, 1.25   # cells per side of the mask grid, half its width in field units
NUM_BASIS, NUM_TIME = 10, 12


@dataclass
class FieldConfig:
    text_dim: int = 192
    hidden: int = 256
    conv_width: int = 64
    conv_blocks: int = 3


def mask_grid(mask):
    """[B, 1, H, W] -> [B, 1, 20, 20] over +-1.25: padded to its square, averaged to 16 x 16, 2 cells of 0 around."""
    h, w = mask.shape[-2:]
    n = max(h, w)
    top, left = (n - h) // 2, (n - w) // 2
    m = F.pad(mask, (left, n - w - left, top, n - h - top))
    return F.pad(F.adaptive_avg_pool2d(m, 16), (2, 2, 2, 2))


def grid_points(device=None):
    """[20, 20, 2] cell centres (x, y)."""
    a = (torch.arange(GRID, device=device, dtype=torch.float32) + 0.5) * (2 * SPAN / GRID) - SPAN
    return torch.stack(torch.broadcast_tensors(a[None], a[:, None]), -1)


def basis(points, geom):
    """points [..., 2] shared, or [B, N, 2]; geom [B, 5] -> [B, N, 10]."""
    b = geom.shape[0]
    p = points.reshape(1, -1, 2).expand(b, -1, -1) if points.dim() != 3 or points.shape[0] != b else points
    cx, cy, r, _, sy = (geom[:, i, None] for i in range(5))
    x, y = p[..., 0] - cx, p[..., 1] - cy
    h = ((1.7 * sy - y) / (3.4 * sy).clamp_min(1e-3)).clamp(0, 1.5)
    wy, wx = 2 * math.pi / WAVE_Y * y, 2 * math.pi / WAVE_X * x
    one = torch.ones_like(x)
    return torch.stack([one, x, y, sy * one, r * one, h * h, wy.sin(), wy.cos(), wx.sin(), wx.cos()], -1)


def time_functions(s, m):
    """s [B, F], m [B] -> [B, F, 12], all 0 at s = 0."""
    m = m[:, None]
    s1, s2, s3 = ((2 * math.pi * k * s).sin() for k in (1, 2, 3))
    ramp = (4 * s).clamp(max=1.0)
    a, b, c = m * s, m * s1, m * s1 * s1
    return torch.stack([a, a * a, a ** 3, b, b * b, b ** 3, m * s2, m * s3, c, c * c,
                        m * ramp * s2, m * ramp * (4 * math.pi * s).cos()], -1)


class FilmBlock(nn.Module):
    def __init__(self, width, cond):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(cond, 2 * width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x, e):
        scale, shift = self.film(e)[:, :, None, None].chunk(2, 1)
        return x + self.conv2(F.silu(self.conv1(F.silu(x)) * (1 + scale) + shift))


class Field(nn.Module):
    def __init__(self, cfg: FieldConfig):
        super().__init__()
        self.cfg = cfg
        n, w = cfg.hidden, cfg.conv_width
        self.cond_1 = nn.Linear(cfg.text_dim + 3, n)
        self.cond_2 = nn.Linear(n, n)
        self.head_1 = nn.Linear(n, n)
        self.weights = nn.Linear(n, NUM_TIME * NUM_BASIS * 2)
        self.gate = nn.Linear(n, 1)
        self.conv_in = nn.Conv2d(1 + NUM_BASIS, w, 3, padding=1)
        self.blocks = nn.ModuleList([FilmBlock(w, n) for _ in range(cfg.conv_blocks)])
        self.conv_out = nn.Conv2d(w, NUM_TIME * 2, 3, padding=1)
        for l in (self.weights, self.conv_out):
            nn.init.zeros_(l.weight)
            nn.init.zeros_(l.bias)

    def forward(self, mask20, geom, pooled, m, s):
        """mask20 [B,1,20,20], geom [B,5], pooled [B,192], m [B], s [B,F]
        -> coef [B,F,10,2], free [B,F,2,20,20], gate logit [B]."""
        b, f = s.shape
        # The shape of the object (not its place) may change the choice of weights.
        e = F.silu(self.cond_1(torch.cat([pooled, geom[:, 2:]], 1)))
        e = F.silu(self.cond_2(e))
        t = time_functions(s, m)
        w = self.weights(F.silu(self.head_1(e))).view(b, NUM_TIME, NUM_BASIS * 2)
        coef = torch.bmm(t, w).view(b, f, NUM_BASIS, 2)
        feats = basis(grid_points(geom.device), geom).view(b, GRID, GRID, NUM_BASIS).permute(0, 3, 1, 2)
        x = self.conv_in(torch.cat([mask20 * 2 - 1, feats], 1))
        for blk in self.blocks:
            x = blk(x, e)
        free = self.conv_out(F.silu(x)).view(b, NUM_TIME, 2 * GRID * GRID)
        free = torch.bmm(t, free).view(b, f, 2, GRID, GRID) * 0.1
        return coef, free, self.gate(e)[:, 0]


def evaluate(coef, free, geom, points):
    """Displacement at points ([..., 2] shared, or [B, F, N, 2]): -> [B, F, N, 2]. `free` is read bilinearly,
    held constant beyond the outermost cell centres."""
    b, f = coef.shape[:2]
    if points.dim() != 4:
        p = points.reshape(1, 1, -1, 2).expand(b, f, -1, -1)
    else:
        p = points
    n = p.shape[2]
    feats = basis(p.reshape(b, f * n, 2), geom).view(b, f, n, NUM_BASIS)
    out = torch.matmul(feats, coef)
    fr = F.grid_sample(free.reshape(b * f, 2, GRID, GRID), (p / SPAN).reshape(b * f, 1, n, 2),
                       mode="bilinear", padding_mode="border", align_corners=False)
    return out + fr.reshape(b, f, 2, n).transpose(2, 3)
