"""Procedural clips with exact motion truth, rendered on the GPU from photographs and cut-outs.

A clip: background crop (384 px, so it covers +-1.5 field units around a 256 px picture), an object canvas
(320 px, +-1.25 units, RGB + opacity) that is a blob cut from another photo, from the same photo, or a real
cut-out, and the inverse maps of `motions.py`. All in -1..1, [N, 3, H, W].
"""
import glob
import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
import torch.nn.functional as F

import guide as G
import motions as M


def load_photos(folder, held):
    """BGR uint8 photographs; file names starting with `held_` belong to the held-out set."""
    names = sorted(n for n in glob.glob(f"{folder}/*.jpg") if n.split("/")[-1].startswith("held_") == held)
    photos = [cv2.imread(n) for n in names]
    return [p for p in photos if p is not None and p.std() > 12]


def crop_bank(photos, n, size, seed, device, augment=True):
    """n random square crops -> uint8 [n, 3, size, size] RGB."""
    def one(i):
        r = np.random.default_rng(seed * 100003 + i)
        p = photos[i % len(photos)]
        side = min(p.shape[:2])
        c = int(side * r.uniform(0.45, 1.0)) if augment else side
        y, x = r.integers(0, p.shape[0] - c + 1), r.integers(0, p.shape[1] - c + 1)
        q = cv2.resize(p[y:y + c, x:x + c], (size, size), interpolation=cv2.INTER_AREA if c > size else cv2.INTER_CUBIC)[..., ::-1]
        if augment:
            if r.random() < .5:
                q = q[:, ::-1]
            if r.random() < .2:
                q = q[..., r.permutation(3)]
            if r.random() < .5:
                q = np.clip((q.astype(np.float32) - 128) * r.uniform(.8, 1.2) + 128 + r.uniform(-15, 15), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(q.transpose(2, 0, 1))
    with ThreadPoolExecutor(8) as ex:
        return torch.from_numpy(np.stack(list(ex.map(one, range(n))))).to(device)


def to_float(u8):
    return u8.float() / 127.5 - 1


def load_stamps(path, device):
    """Cut-outs with real outlines: [n, 4, 192, 192] RGB -1..1 and opacity 0..1."""
    s = torch.from_numpy(np.load(path)["s"]).to(device).permute(0, 3, 1, 2).float()
    return torch.cat([s[:, [2, 1, 0]] / 127.5 - 1, s[:, 3:] / 255], 1)


def uniform(n, lo, hi, device):
    return torch.rand(n, device=device) * (hi - lo) + lo


def blob_alpha(points, centre, radius, soft=64.0):
    """Star-shaped blob, antialiased. points [h,w,2], centre [B,2], radius [B] -> [B,1,h,w]."""
    b, dev = len(radius), radius.device
    d = points[None] - centre[:, None, None]
    ang = uniform(b, 0, math.pi, dev)[:, None, None]
    asp = uniform(b, .55, 1.0, dev)[:, None, None]
    x = d[..., 0] * ang.cos() + d[..., 1] * ang.sin()
    y = (d[..., 1] * ang.cos() - d[..., 0] * ang.sin()) / asp
    th, rho = torch.atan2(y, x), (x * x + y * y).sqrt()
    edge = radius[:, None, None] * (1 + sum(uniform(b, 0, .22 / k, dev)[:, None, None]
                                            * (k * th + uniform(b, 0, 6.28, dev)[:, None, None]).cos() for k in (2, 3, 4, 5)))
    return ((edge - rho) * soft + .5).clamp(0, 1)[:, None]


def holes(n, size, device):
    """Random object-like holes for the plate net: 1-2 blobs, [n, 1, size, size] hard."""
    p = M.pixel_grid(size, size, device)
    a = blob_alpha(p, torch.rand(n, 2, device=device) * 1.4 - .7, uniform(n, .1, .5, device))
    b = blob_alpha(p, torch.rand(n, 2, device=device) * 1.6 - .8, uniform(n, -.2, .25, device))
    return (torch.maximum(a, b) > .5).float()


class Clips:
    """Renders batches of clips. `kinds` [n, K+1] and `ids` [n, 32] come from the caption bank."""

    def __init__(self, bank384, stamps, frames=16, size=256):
        self.bank, self.stamps, self.f, self.size = bank384, stamps, frames, size
        self.dev = bank384.device
        self.points = M.pixel_grid(size, size, self.dev)
        a = (torch.arange(320, device=self.dev) + .5) / 128 - 1.25
        self.canvas_points = torch.stack(torch.broadcast_tensors(a[None], a[:, None]), -1)

    def canvas(self, bg, gated):
        """Object canvas [B, 4, 320, 320]."""
        b, dev = len(bg), self.dev
        pts = self.canvas_points
        centre = torch.rand(b, 2, device=dev) * 1.0 - .5
        radius = uniform(b, .16, .5, dev)
        alpha = blob_alpha(pts, centre, radius)
        tex = to_float(self.bank[torch.randint(len(self.bank), (b,), device=dev)])
        ang, sc = uniform(b, 0, 6.28, dev), uniform(b, .5, 1.1, dev)
        d = pts[None] - centre[:, None, None]
        co, si = (ang.cos() * sc)[:, None, None], (ang.sin() * sc)[:, None, None]
        rot = torch.stack([co * d[..., 0] - si * d[..., 1], si * d[..., 0] + co * d[..., 1]], -1)
        rgb = F.grid_sample(tex, rot / 1.5, padding_mode="reflection", align_corners=False)
        own = F.grid_sample(bg, pts[None].expand(b, -1, -1, -1) / 1.5, align_corners=False)
        same = (torch.rand(b, device=dev) < torch.where(gated > 0, .7, .0))[:, None, None, None]
        rgb = torch.where(same, own, rgb)
        if self.stamps is not None:
            st = self.stamps[torch.randint(len(self.stamps), (b,), device=dev)]
            half, tilt = uniform(b, .3, .75, dev), uniform(b, -.3, .3, dev)
            co, si = (tilt.cos() / half)[:, None, None], (tilt.sin() / half)[:, None, None]
            flip = torch.where(torch.rand(b, device=dev) < .5, 1.0, -1.0)[:, None, None]
            g = torch.stack([flip * (co * d[..., 0] - si * d[..., 1]), si * d[..., 0] + co * d[..., 1]], -1)
            srgb = F.grid_sample(st[:, :3], g, padding_mode="border", align_corners=False)
            sa = F.grid_sample(st[:, 3:], g, align_corners=False)
            use = ((torch.rand(b, device=dev) < .55) & (gated == 0))[:, None, None, None]
            rgb, alpha = torch.where(use, srgb, rgb), torch.where(use, sa, alpha)
        return torch.cat([rgb, alpha], 1)

    def given_mask(self, alpha):
        """What a person's click would give: off by -1 .. +3 px, sometimes softened."""
        b, dev = len(alpha), self.dev
        grow = [-F.max_pool2d(-alpha, 3, 1, 1), alpha, F.max_pool2d(alpha, 3, 1, 1), F.max_pool2d(alpha, 5, 1, 2), F.max_pool2d(alpha, 7, 1, 3)]
        pick = torch.multinomial(torch.tensor([.12, .4, .2, .16, .12], device=dev), b, True)[:, None, None, None]
        m = sum((pick == i) * g for i, g in enumerate(grow))
        soft = F.avg_pool2d(m, 5, 1, 2, count_include_pad=False)
        return torch.where(torch.rand(b, 1, 1, 1, device=dev) < .4, soft, m)

    @torch.no_grad()
    def render(self, kinds, m, camera=True, exact_mask=False):
        """kinds [B, K+1], m [B] -> dict: truth [B*F,3,H,W], frame0, mask, P, D [B,F,H,W,2], gate, swept [B*F,1,H,W]."""
        b, f, n, dev = len(kinds), self.f, self.size, self.dev
        gated = M.gate(kinds)
        bg = to_float(self.bank[torch.randint(len(self.bank), (b,), device=dev)])
        canvas = self.canvas(bg, gated)
        s = torch.linspace(0, 1, f, device=dev)[None].expand(b, -1)
        cam = torch.zeros(b, 1, 4, device=dev)
        if camera:
            scale = torch.tensor([.22, .22, .18, .12], device=dev)
            cam = (torch.rand(b, 1, 4, device=dev) * 2 - 1) * scale * (torch.rand(b, 1, 1, device=dev) < .3)
        P = G.camera_points(cam * s[..., None], n, n)
        alpha0 = canvas[:, 3:, 32:288, 32:288]
        mask = alpha0 if exact_mask else self.given_mask(alpha0)
        D = M.displacement(kinds, m, s, M.geometry(mask), P.reshape(b, f, -1, 2)).view(b, f, n, n, 2)
        flat = lambda t: t.reshape(b * f, n, n, 2)
        rep = lambda t: t[:, None].expand(-1, f, -1, -1, -1).reshape(b * f, *t.shape[1:])
        back = F.grid_sample(rep(bg), flat(P) / 1.5, padding_mode="border", align_corners=False)
        q = flat(P + D) / 1.25
        cv = rep(canvas)
        obj = F.grid_sample(cv[:, :3], q, padding_mode="border", align_corners=False)
        a_moved = F.grid_sample(cv[:, 3:], q, align_corners=False)
        a_fixed = F.grid_sample(cv[:, 3:], flat(P) / 1.25, align_corners=False)
        g = gated.view(b, 1).expand(-1, f).reshape(-1, 1, 1, 1)
        a = g * a_fixed + (1 - g) * a_moved
        truth = a * obj + (1 - a) * back
        return dict(truth=truth, frame0=truth.view(b, f, 3, n, n)[:, 0], mask=mask, P=P, D=D, gate=gated,
                    object=a, source=a_fixed, moving=(kinds[:, M.INDEX["still"]] + kinds[:, M.UNRECOGNISED] == 0))
