"""Trains the background plate on photo crops with object-shaped holes. usage: train_plate.py DATA SECONDS [tiny]"""
import math
import sys
import time

import torch
import torch.nn.functional as F

from data import crop_bank, holes, load_photos, to_float
from guide import dilate, push_pull
from plate import Plate, PlateConfig
from train_common import cosine, half_state, save_both, say

DATA, SECONDS, TINY = sys.argv[1], float(sys.argv[2]), len(sys.argv) > 3
dev = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(1)
N = 64 if TINY else 256
bank = crop_bank(load_photos(DATA + "/photos", False), 16 if TINY else 5000, N + 16, 3, dev)
held = to_float(crop_bank(load_photos(DATA + "/photos", True), 4 if TINY else 54, N, 4, dev, augment=False))
net = Plate(PlateConfig()).to(dev).to(memory_format=torch.channels_last)
opt = torch.optim.AdamW(net.parameters(), lr=4e-4, betas=(.9, .98), weight_decay=1e-3, fused=dev == "cuda")
ema = [p.detach().clone() for p in net.parameters()]
held_hole = dilate(holes(len(held), N, dev), 4)
held_fill = push_pull(held, 1 - held_hole)


def psnr_in_hole(y):
    e = ((y.clamp(-1, 1) - held) ** 2 * held_hole).sum() / held_hole.sum() / 3 / 4
    return round(-10 * math.log10(float(e)), 3)


def evaluate():
    with torch.no_grad(), torch.autocast(dev, torch.bfloat16):
        return psnr_in_hole(torch.cat([net(held_fill[i:i + 9], held_hole[i:i + 9]).float() for i in range(0, len(held), 9)]))


say("plate", "push-pull held-out PSNR in hole", psnr_in_hole(held_fill))
B = 2 if TINY else 24
t0, it, last = time.time(), 0, time.time()
while (frac := (time.time() - t0) / SECONDS) < 1:
    for g in opt.param_groups:
        g["lr"] = 4e-4 * min(1, (it + 1) / 200) * cosine(frac, warm=0.0)
    o = int(torch.randint(16, (1,)))
    x = to_float(bank[torch.randint(len(bank), (B,), device=dev), :, o:o + N, o:o + N])
    hole = dilate(holes(B, N, dev), 4)
    with torch.no_grad():
        fill = push_pull(x, 1 - hole)
    with torch.autocast(dev, torch.bfloat16):
        y = net(fill, hole).float()
    # Deep inside a large hole nothing can be known and its error is mostly noise: weigh by nearness to the known.
    w = hole * (.15 + F.avg_pool2d(1 - hole, 25, 1, 12))
    w = w / w.mean().clamp_min(.01)
    d = y - x
    loss = (d ** 2 * w).mean() + .15 * (d.abs() * w).mean() + .2 * (F.avg_pool2d(d, 4) ** 2).mean() / hole.mean().clamp_min(.02)
    loss = loss + .1 * sum((g.abs() * w[..., :g.shape[-2], :g.shape[-1]]).mean() for g in (d[..., 1:, :] - d[..., :-1, :], d[..., 1:] - d[..., :-1]))
    opt.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    opt.step()
    it += 1
    if it % 5 == 0:
        torch._foreach_lerp_(ema, [p.detach() for p in net.parameters()], 1 - min(.995, (it + 1) / (it + 60)))
    if time.time() - last > (30 if not TINY else 1):
        last = time.time()
        say("plate", it, f"loss {float(loss):.4f} held-out hole PSNR {evaluate()}")
for p, e in zip(net.parameters(), ema):
    p.data.copy_(e)
say("plate", "done", it, "steps; EMA held-out hole PSNR", evaluate(), "push-pull", psnr_in_hole(held_fill))
save_both(half_state(net), "plate.safetensors")
