"""Trains the autoencoder for a given number of seconds. usage: train_autoencoder.py DATA SECONDS [tiny]

From weights of an earlier session (DATA/autoencoder.safetensors) it goes on more gently: the latents are tied to the
earlier encoder's, because the UNet was trained on those, and the squared error leads.
"""
import copy
import math
import os
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from autoencoder import Autoencoder, AutoencoderConfig
from data import crop_bank, load_photos, to_float
from train_common import WORK, cosine, half_state, save_both, say

DATA, SECONDS, TINY = sys.argv[1], float(sys.argv[2]), len(sys.argv) > 3
dev = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


class Trunk:
    """VGG16 up to conv3_3 (weights of an edge detector built on it); returns three unit-scaled feature maps."""

    def __init__(self, path):
        self.w = {k: v.to(dev).bfloat16() for k, v in load_file(path).items()}
        self.mean = torch.tensor([103.94, 116.78, 123.68], device=dev).view(1, 3, 1, 1)

    def __call__(self, x):  # RGB -1..1
        y, out = (((x.flip(1) + 1) * 127.5) - self.mean).bfloat16().contiguous(memory_format=torch.channels_last), []
        for b, n in (("block1", 2), ("block2", 2), ("block3", 3)):
            if out:
                y = F.max_pool2d(y, 2)
            for j in range(n):
                y = F.relu(F.conv2d(y, self.w[f"{b}.{j}.w"], self.w[f"{b}.{j}.b"], padding=1))
            out.append(y.float() / y.float().pow(2).mean(1, keepdim=True).add(1e-2).sqrt())
        return out


def grads(x):
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def psnr_held(net, held):
    """pooled and mean-per-image PSNR over 0..255 of -1..1 pictures."""
    e = []
    with torch.no_grad(), torch.autocast(dev, torch.bfloat16):
        for i in range(0, len(held), 8):
            x = to_float(held[i:i + 8])
            y = net.decode(net.encode(x)).float().clamp(-1, 1)
            e.append(((x - y) ** 2).mean((1, 2, 3)))
    e = torch.cat(e) / 4
    return -10 * math.log10(e.mean()), float((-10 * e.log10()).mean())


photos = load_photos(DATA + "/photos", False)
FINE = os.path.exists(DATA + "/autoencoder.safetensors")   # weights of an earlier session: refine them
# The product sees whole photographs at 256 px, so refining is done on crops about as sharp as that.
SIDE = 256 if FINE else 288
bank = crop_bank(photos, 32 if TINY else 16000 if FINE else 6000, SIDE, 1, dev)
held = crop_bank(load_photos(DATA + "/photos", True), 4 if TINY else 54, 256, 2, dev, augment=False)
say("ae", "photos", len(photos), "crops", len(bank))
net = Autoencoder(AutoencoderConfig()).to(dev).to(memory_format=torch.channels_last)
SCALE = None   # refining keeps the scale of the latents the UNet was trained with
if FINE:
    earlier = load_file(DATA + "/autoencoder.safetensors")
    SCALE = earlier.pop("_scale", None)
    net.load_state_dict({k: v.float() for k, v in earlier.items()})
before = copy.deepcopy(net.encoder).requires_grad_(False)
vgg = Trunk(DATA + "/vgg.safetensors")
torch.backends.cudnn.benchmark = True
encode, decode, encode_before = (f if TINY else torch.compile(f) for f in (net.encoder, net.decoder, before))
RATE = 6e-4 if FINE else 1e-3
opt = torch.optim.AdamW(net.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=1e-4, fused=dev == "cuda")
ema = {k: v.detach().clone() for k, v in net.named_parameters()}
B, C = (2, 64) if TINY else (48, 192)
t0, it, last = time.time(), 0, 0
while True:
    frac = (time.time() - t0) / SECONDS
    if frac >= 1:
        break
    for g in opt.param_groups:
        g["lr"] = RATE * min(1, (it + 1) / 150) * cosine(frac, warm=0.0)
    i = torch.randint(len(bank), (B,), device=dev)
    oy, ox = (int(torch.randint(SIDE - C, (1,))) for _ in "ab")
    x = to_float(bank[i, :, oy:oy + C, ox:ox + C]).contiguous(memory_format=torch.channels_last)
    with torch.autocast(dev, torch.bfloat16):
        z = encode(x)
        target, tie = x, 0.0
        if FINE:
            with torch.no_grad():
                z_before = encode_before(x).float()
            tie = ((z.float() - z_before) ** 2).mean() / z_before.var()
        if it % 10 == 9:   # a turned or scaled latent must decode to the turned or scaled picture
            a, s = (torch.rand(B, device=dev) - .5) * 1.2, 1 + (torch.rand(B, device=dev) - .5) * .4
            th = torch.stack([torch.stack([s * a.cos(), -s * a.sin(), torch.rand(B, device=dev) * .2 - .1], 1),
                              torch.stack([s * a.sin(), s * a.cos(), torch.rand(B, device=dev) * .2 - .1], 1)], 1)
            z = F.grid_sample(z.float(), F.affine_grid(th, z.shape, align_corners=False), align_corners=False, padding_mode="reflection")
            target = F.grid_sample(x, F.affine_grid(th, x.shape, align_corners=False), align_corners=False, padding_mode="reflection")
        y = decode(z + .01 * torch.randn_like(z)).float()
    loss = (y - target).abs().mean() + (60 if FINE else 12) * ((y - target) ** 2).mean() + .5 * tie
    for k in (2, 4):
        loss = loss + .5 * (F.avg_pool2d(y, k) - F.avg_pool2d(target, k)).abs().mean()
    loss = loss + .25 * sum((p - q).abs().mean() for p, q in zip(grads(y), grads(target)))
    loss = loss + 1e-3 * (z.float().abs() - 2.5).clamp_min(0).pow(2).mean()
    if it % 4 == 0:
        with torch.no_grad():
            ft = vgg(target[:12])
        loss = loss + (.004 if FINE else .01) * sum((p - q).abs().mean() for p, q in zip(vgg(y[:12]), ft))
    opt.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    opt.step()
    it += 1
    if it % 5 == 0:
        d = min(.995, (it + 1) / (it + 60))
        torch._foreach_lerp_(list(ema.values()), [p.detach() for p in net.parameters()], 1 - d)
    if time.time() - last > (30 if not TINY else 1):
        last = time.time()
        say("ae", it, f"loss {float(loss.detach()):.4f} held-out PSNR pooled/mean {psnr_held(net, held)} latent std {float(z.std()):.3f} tie {float(tie.detach()) if FINE else 0:.4f}")
for k, p in net.named_parameters():
    p.data.copy_(ema[k])
with torch.no_grad():
    z = net.encode(to_float(bank[:64]))
say("ae", "done", it, "steps; EMA held-out PSNR", psnr_held(net, held), "latent std", float(z.std()))
scale = SCALE if SCALE is not None else (1 / z.std()).float().cpu().reshape(1)
save_file({"s": scale}, f"{WORK}/scale.safetensors")
st = half_state(net)
st["_scale"] = scale
save_both(st, "autoencoder.safetensors")
