"""The motions kinora-mini knows, as exact formulas. This file is the definition of the truth.

Frame of reference ("field units"): the picture's circumscribing square is [-1, 1]^2, x to the right,
y DOWN, the picture centred in it. Pixel i of a W-wide, H-high picture has x = (2(i + 0.5) - W) / max(W, H).
So 1 unit is max(W, H) / 2 pixels: 128 px for a 256 px picture.

A motion is an INVERSE map: target point P at time s in [0, 1] shows frame 0 at q = P + D(P; s, m), where
m in [0, 1] is the magnitude. s = t / 15 for frame t of 16. With the object's geometry

    c = (cx, cy)   mean of the mask's coordinates (mask values as weights)
    sy             standard deviation of y under the mask
    top = cy - 1.7 sy,  base = cy + 1.7 sy,  height = 3.4 sy

every kind is a special case of

    q = v + exp(-g) R(-a) (P - d - v) + w(P)            with R(a) (x, y) = (x cos a - y sin a, x sin a + y cos a)

d: where the content moves, a: angle (positive = clockwise as seen, since y is down), g: log of the growth,
v: pivot (c unless said), w: bending or waves. S(k) = sin(2 pi k s), B = sin(2 pi s)^2, ramp = min(1, 4 s).

kind            formula (everything not named is 0)
left right      d = 0.40 m s (-1, 0) / (1, 0)          up down    d = 0.40 m s (0, -1) / (0, 1)
up_left ...     d = 0.40 m s (+-1, +-1) / sqrt 2
turn_cw         a = 1.2 m s                            turn_ccw   a = -1.2 m s          (radians)
grow            g = 0.50 m s                           shrink     g = -0.60 m s
sway            w = (-0.16 m S(1) h^2, 0), h = clip((base - y) / height, 0, 1.5): the foot stays, the tip bends
ripple *        w = -m ramp (0.035 sin(2 pi ((y - cy) / 0.32 - 2 s)), 0.020 sin(2 pi ((x - cx) / 0.40 - 2 s)))
flow_<dir> *    d = 0.25 m s dir                       (left, right, up, down)
bounce          d = 0.24 m B (0, -1): two soft hops    shake      d = 0.07 m S(3) (1, 0)
swing           a = 0.5 m S(1) about v = (cx, top): a pendulum, clockwise first
pulse           g = 0.22 m B: two soft beats           still      q = P

* gated: the texture moves INSIDE the fixed outline of the mask; all other kinds carry the outline along.
A pair is a direction together with one of turn_cw, turn_ccw, grow, shrink: their d, a and g together.
"""
import math

import torch

KINDS = ["left", "right", "up", "down", "up_left", "up_right", "down_left", "down_right",
         "turn_cw", "turn_ccw", "grow", "shrink", "sway", "ripple",
         "flow_left", "flow_right", "flow_up", "flow_down", "bounce", "shake", "swing", "pulse", "still"]
INDEX = {k: i for i, k in enumerate(KINDS)}
GATED = {"ripple", "flow_left", "flow_right", "flow_up", "flow_down"}
DIRECTIONS = KINDS[:8]
PAIR_WITH = ["turn_cw", "turn_ccw", "grow", "shrink"]
UNRECOGNISED = len(KINDS)
STEP, FLOW, TURN, GROW, SHRINK, SWAY = 0.40, 0.25, 1.2, 0.50, 0.60, 0.16
RIPPLE_X, RIPPLE_Y, WAVE_Y, WAVE_X = 0.035, 0.020, 0.32, 0.40
BOUNCE, SHAKE, SWING, PULSE = 0.24, 0.07, 0.5, 0.22
_D = math.sqrt(0.5)
VECTORS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "up_left": (-_D, -_D),
           "up_right": (_D, -_D), "down_left": (-_D, _D), "down_right": (_D, _D)}


def pixel_grid(h, w, device=None):
    """[h, w, 2] field-unit coordinates (x, y) of the pixel centres."""
    n = max(h, w)
    y = (2 * (torch.arange(h, device=device, dtype=torch.float32) + 0.5) - h) / n
    x = (2 * (torch.arange(w, device=device, dtype=torch.float32) + 0.5) - w) / n
    return torch.stack(torch.broadcast_tensors(x[None], y[:, None]), -1)


def geometry(mask):
    """mask [B, 1, H, W] -> [B, 5]: cx, cy, r, sx, sy (field units); r = sqrt(area / pi)."""
    b, _, h, w = mask.shape
    p = pixel_grid(h, w, mask.device)
    m = mask[:, 0].float()
    total = m.sum((1, 2)).clamp_min(1e-3)
    c = torch.einsum("bhw,hwk->bk", m, p) / total[:, None]
    var = torch.einsum("bhw,hwk->bk", m, p * p) / total[:, None] - c * c
    area = total * (2.0 / max(h, w)) ** 2
    return torch.cat([c, (area / math.pi).sqrt()[:, None], var.clamp_min(1e-6).sqrt()], 1)


def one_hot_kinds(names, device=None):
    """list of kind names or tuples of two -> [B, K + 1] multi-hot (last column "unrecognised")."""
    out = torch.zeros(len(names), len(KINDS) + 1, device=device)
    for i, n in enumerate(names):
        for k in ([n] if isinstance(n, str) else n):
            out[i, UNRECOGNISED if k == "unrecognised" else INDEX[k]] = 1
    return out


def displacement(kinds, m, s, geom, points):
    """Exact D in field units.

    kinds [B, K+] multi-hot; m [B]; s [B, F]; geom [B, 5]; points [..., 2] shared by the batch, or
    [B, F, N, 2] -> [B, F, N, 2].
    """
    b, f = s.shape
    k = {n: kinds[:, i, None].float() for n, i in INDEX.items()}
    m = m[:, None]
    s1, s3, beat = (2 * math.pi * s).sin(), (6 * math.pi * s).sin(), (2 * math.pi * s).sin() ** 2
    ramp = (4 * s).clamp(max=1.0)
    dx = sum(k[n] * v[0] for n, v in VECTORS.items()) * STEP * m * s
    dy = sum(k[n] * v[1] for n, v in VECTORS.items()) * STEP * m * s
    dx = dx + FLOW * m * s * (k["flow_right"] - k["flow_left"]) + k["shake"] * SHAKE * m * s3
    dy = dy + FLOW * m * s * (k["flow_down"] - k["flow_up"]) - k["bounce"] * BOUNCE * m * beat
    a = TURN * m * s * (k["turn_cw"] - k["turn_ccw"]) + k["swing"] * SWING * m * s1
    g = m * (s * (GROW * k["grow"] - SHRINK * k["shrink"]) + PULSE * beat * k["pulse"])
    cx, cy, sy = geom[:, 0, None], geom[:, 1, None], geom[:, 4, None]
    vy = cy - 1.7 * sy * k["swing"]
    p = points.reshape(-1, 2)[None, None].expand(b, f, -1, -1) if points.dim() != 4 else points
    x, y = p[..., 0], p[..., 1]
    e = lambda t: t[..., None]
    rx, ry = x - e(dx + cx), y - e(dy + vy)
    co, si, z = e(a.cos()), e(a.sin()), e((-g).exp())
    qx = e(cx.expand_as(s)) + z * (co * rx + si * ry)
    qy = e(vy.expand_as(s)) + z * (co * ry - si * rx)
    h = ((e(cy + 1.7 * sy) - y) / e(3.4 * sy).clamp_min(1e-3)).clamp(0, 1.5)
    qx = qx - e(k["sway"] * SWAY * m * s1) * h * h
    tau = 2 * math.pi
    qx = qx - e(k["ripple"] * RIPPLE_X * m * ramp) * (tau * ((y - e(cy)) / WAVE_Y - 2 * e(s))).sin()
    qy = qy - e(k["ripple"] * RIPPLE_Y * m * ramp) * (tau * ((x - e(cx)) / WAVE_X - 2 * e(s))).sin()
    return torch.stack([qx - x, qy - y], -1)


def gate(kinds):
    """[B, K+] -> [B] 1 where the outline stays."""
    return kinds[:, [INDEX[n] for n in sorted(GATED)]].sum(1).clamp(max=1)
