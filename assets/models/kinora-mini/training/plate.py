"""Background plate: a small convolutional net that paints what is behind the object.

Input is frame 0 with the (dilated) object hole filled by a push-pull pyramid, plus the hole; output
replaces the hole only. All at one working size, a multiple of 8 (stem 4x pixel-unshuffle, one level below).
"""
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class PlateConfig:
    patch: int = 4
    widths: list = field(default_factory=lambda: [96, 128])
    outer_blocks: int = 2                                        # residual blocks before and after
    dilations: list = field(default_factory=lambda: [1, 2, 4, 8])   # residual blocks at half size


class ResBlock(nn.Module):
    def __init__(self, c, dilation=1):
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1)
        self.conv2.weight.data *= 0.2

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Plate(nn.Module):
    def __init__(self, cfg: PlateConfig):
        super().__init__()
        self.cfg = cfg
        p2, (w0, w1) = cfg.patch ** 2, cfg.widths
        self.conv_in = nn.Conv2d(4 * p2, w0, 3, padding=1)
        self.before = nn.ModuleList([ResBlock(w0) for _ in range(cfg.outer_blocks)])
        self.down = nn.Conv2d(w0, w1, 3, stride=2, padding=1)
        self.middle = nn.ModuleList([ResBlock(w1, d) for d in cfg.dilations])
        self.up = nn.Conv2d(w1, w0, 3, padding=1)
        self.after = nn.ModuleList([ResBlock(w0) for _ in range(cfg.outer_blocks)])
        self.conv_out = nn.Conv2d(w0, 3 * p2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, filled, hole):
        """filled [N,3,H,W] in -1..1 (push-pull inside the hole), hole [N,1,H,W] 0..1 -> [N,3,H,W]."""
        x = self.conv_in(F.pixel_unshuffle(torch.cat([filled, hole * 2 - 1], 1), self.cfg.patch))
        for b in self.before:
            x = b(x)
        skip = x
        x = self.down(x)
        for b in self.middle:
            x = b(x)
        x = skip + self.up(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        for b in self.after:
            x = b(x)
        return filled + hole * F.pixel_shuffle(self.conv_out(F.silu(x)), self.cfg.patch)
