"""The guide: frame 0 warped by object motion and camera, over a background plate, before any diffusion.

Pictures are [.., 3, H, W] in -1..1, masks [.., 1, H, W] in 0..1, points in the field units of `motions.py`.
The evaluation's pure-warp baseline is the same code with the push-pull fill alone as the plate.
"""
import math

import torch
import torch.nn.functional as F

from motions import pixel_grid


def push_pull(img, weight):
    """Smooth fill. img [N,C,H,W], weight [N,1,H,W] (1 = known) -> [N,C,H,W], equal to img where weight is 1.

    Halve (edges repeated to even size) to one pixel, averaging known pixels only; then double bilinearly
    (half-pixel centres) and keep what is known at each level."""
    h, w = img.shape[-2:]
    if h == 1 and w == 1:
        return img
    pad = (0, w % 2, 0, h % 2)
    ip, wp = F.pad(img, pad, mode="replicate"), F.pad(weight, pad, mode="replicate")
    den = F.avg_pool2d(wp, 2)
    coarse = F.avg_pool2d(ip * wp, 2) / den.clamp_min(1e-6)
    low = push_pull(coarse, (2 * den).clamp(max=1))
    up = F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)[..., :h, :w]
    return img * weight + up * (1 - weight)


def dilate(mask, px):
    """Square dilation by px pixels to each side."""
    return F.max_pool2d(mask, 2 * px + 1, stride=1, padding=px)


def hole_of(mask):
    """What the plate must paint: everything within max(H, W) / 64 pixels of the mask (> 0.05), hard edge."""
    return dilate((mask > 0.05).float(), max(1, round(max(mask.shape[-2:]) / 64)))


def fill_and_hole(frame0, mask):
    hole = hole_of(mask)
    return push_pull(frame0, 1 - hole), hole


def sample(img, points, border=True):
    """Bilinear reading. img [N,C,H,W], points [N,h,w,2] field units -> [N,C,h,w]; beyond the picture the
    edge is held (border) or 0."""
    h, w = img.shape[-2:]
    n = max(h, w)
    g = torch.stack([points[..., 0] * (n / w), points[..., 1] * (n / h)], -1)
    return F.grid_sample(img, g, mode="bilinear", padding_mode="border" if border else "zeros", align_corners=False)


def inside(points, h, w):
    """1 where the point lies in the picture. [..., 2] -> [...]"""
    n = max(h, w)
    return ((points[..., 0].abs() <= w / n) & (points[..., 1].abs() <= h / n)).float()


def camera_points(cam, h, w):
    """cam [B,F,4] = pan x, pan y, log zoom, roll -> P [B,F,H,W,2] in frame 0's plane:
    P = exp(-zoom) R(-roll) p - pan. Content moves by +pan; zoom > 0 comes closer; roll > 0 turns it clockwise."""
    p = pixel_grid(h, w, cam.device)
    pan, z, r = cam[..., :2], (-cam[..., 2]).exp(), cam[..., 3]
    c, s = (z * r.cos())[..., None, None], (z * r.sin())[..., None, None]
    x = c * p[..., 0] + s * p[..., 1] - pan[..., 0, None, None]
    y = c * p[..., 1] - s * p[..., 0] - pan[..., 1, None, None]
    return torch.stack([x, y], -1)


def build(frame0, mask, plate, hole, P, D, gate):
    """frame0/plate [B,3,H,W], mask/hole [B,1,H,W], P and D [B,F,H,W,2], gate [B] (1: outline stays)
    -> guide [B*F,3,H,W], moved mask [B*F,1,H,W], validity [B*F,1,H,W].

    Object: colour I0(q), q = P + D(P), opacity mask(q). Gated: opacity mask(P), and where q has left the
    mask the still picture shows through. Background: the plate replaces the hole only where the object
    has really moved (over 2 px of 256), so that what stands still stays the photograph."""
    b, f, h, w, _ = P.shape
    rep = lambda t: t[:, None].expand(-1, f, -1, -1, -1).reshape(b * f, *t.shape[1:])
    g = gate.view(b, 1, 1, 1, 1).expand(-1, f, -1, -1, -1).reshape(b * f, 1, 1, 1)
    P, D = P.reshape(b * f, h, w, 2), D.reshape(b * f, h, w, 2)
    q = P + D
    i0, m0, b0, hl = rep(frame0), rep(mask), rep(plate), rep(hole)
    stay, moved = sample(i0, P), sample(i0, q)
    mp, mq = sample(m0, P, border=False), sample(m0, q, border=False)
    alpha = g * mp + (1 - g) * mq
    known = mq * inside(q, h, w)[:, None]
    colour = torch.where(g > 0, mq * moved + (1 - mq) * stay, moved)
    shift = (D.norm(dim=-1) * 64.0).clamp(max=1)[:, None]           # 1 unit = 128 px of 256; full from 2 px
    gone = sample(hl, P, border=False) * shift * (1 - g)
    back = stay + gone * (sample(b0, P) - stay)
    guide = alpha * colour + (1 - alpha) * back
    v_obj = torch.where(g > 0, known, inside(q, h, w)[:, None])
    valid = inside(P, h, w)[:, None] * (alpha * v_obj + (1 - alpha) * (1 - gone))
    return guide, alpha, valid


def latent_maps(mask, valid):
    """[N,1,H,W] each -> [N,2,H/8,W/8]: the two extra UNet channels (mean of each 8 x 8 block)."""
    return F.avg_pool2d(torch.cat([mask, valid], 1), 8)


def detail_return(out, guide, guide_decoded, valid):
    """Adds what the autoencoder loses on the known part: out + V (guide - dec(enc(guide))); V is the
    validity eroded by 2 px."""
    v = -F.max_pool2d(-valid, 5, stride=1, padding=2)
    return out + v * (guide - guide_decoded)
