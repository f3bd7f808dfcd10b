"""Trains the denoising UNet on the guide's latent residual, for a given time; resumes where it finds a state.

usage: train_unet.py DATA SECONDS WAIT [--lr 1.0] [--decay] [--tiny]
SECONDS counts from the start of the process (compilation and waiting for the autoencoder included).
Needs autoencoder.safetensors, plate.safetensors and text_field.safetensors in $WORK (made by the other scripts).
"""
import argparse
import math
import os
import time

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import guide as G
import motions as M
from autoencoder import Autoencoder, AutoencoderConfig
from data import Clips, crop_bank, load_photos, load_stamps, uniform
from plate import Plate, PlateConfig
from sampler import clip_noise, unet_input
from text import TextConfig, TextEncoder
from train_common import OUT, START, WORK, Muon, say, wait_for
from unet import UNet, UNetConfig

ap = argparse.ArgumentParser()
ap.add_argument("data")
ap.add_argument("seconds", type=float)
ap.add_argument("wait", type=float)
ap.add_argument("--lr", type=float, default=1.0)
ap.add_argument("--decay", action="store_true")
ap.add_argument("--tiny", action="store_true")
ap.add_argument("--seed", type=int, default=10)
args = ap.parse_args()
dev = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(args.seed)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
FR, SIZE = (4, 256) if args.tiny else (16, 256)
B, FRESH, RING = (2, 2, 6) if args.tiny else (32, 8, 3072)
LAT = SIZE // 8
T = 32

small = dict(block_out_channels=[32, 32, 32], num_attention_heads=[1, 1, 1], motion_num_attention_heads=[1, 1, 1])
net = UNet(UNetConfig(**(small if args.tiny else {}))).to(dev).to(memory_format=torch.channels_last)
state_file = f"{WORK}/unet_state.pt"
resumed = None
if os.path.exists(state_file):
    resumed = torch.load(state_file, map_location=dev)
    net.load_state_dict(resumed["net"])
elif os.path.exists(args.data + "/unet-00001-of-00003.safetensors"):   # averaged weights of an earlier machine
    for i in (1, 2, 3):
        net.load_state_dict({k: v.float() for k, v in load_file(f"{args.data}/unet-0000{i}-of-00003.safetensors").items()}, strict=False)
    resumed = {"step": 3000}
mats = [p for n, p in net.named_parameters() if p.dim() > 1 and "conv_in" not in n and "conv_out" not in n and "embedding" not in n]
ids_m = {id(p) for p in mats}
rest = [p for p in net.parameters() if id(p) not in ids_m]
muon, adam = Muon(mats), torch.optim.AdamW(rest, lr=1e-3, betas=(.9, .98), weight_decay=0.0, fused=dev == "cuda")
params = list(net.parameters())
ema = [p.detach().clone() for p in params]
step0 = 0
if resumed and "muon" in resumed:
    muon.buf = resumed["muon"]
    adam.load_state_dict(resumed["adam"])
    ema = resumed["ema"]
if resumed:
    step0 = resumed["step"]
run = net if args.tiny else torch.compile(net, dynamic=False)
say("unet", "parameters", sum(p.numel() for p in params) / 1e6, "resumed at", step0)


def loss_of(x, g, maps, y, tau, ctx, m, w):
    """weighted x-prediction error; w [B*F,1,h,w] spatial weight including the clip's weight."""
    with torch.autocast(dev, torch.bfloat16):
        out = run(unet_input(x, g, maps).contiguous(memory_format=torch.channels_last), tau * 1000, ctx, m * 1000, FR)
    return ((out.float() - y) ** 2 * w).mean()


if not resumed and not args.tiny:   # compile while the other processes still train
    r = lambda *s: torch.randn(*s, device=dev)
    loss_of(r(B * FR, 16, LAT, LAT), r(B * FR, 16, LAT, LAT), r(B * FR, 2, LAT, LAT), r(B * FR, 16, LAT, LAT), torch.rand(B, device=dev),
            r(B, T, 192), torch.rand(B, device=dev), torch.ones(B * FR, 1, LAT, LAT, device=dev)).backward()
    for p in params:
        p.grad = None
    torch.cuda.synchronize()
    say("unet", "compiled; memory", torch.cuda.max_memory_allocated() >> 20, "MiB")
photos, held_photos = load_photos(args.data + "/photos", False), load_photos(args.data + "/photos", True)
bank = crop_bank(photos, 16 if args.tiny else 4000, 384, 5 + args.seed, dev)
held_bank = crop_bank(held_photos, 8 if args.tiny else 72, 384, 6, dev, augment=False)
stamps = load_stamps(args.data + "/stamps.npz", dev)
say("unet", "banks ready")
for f in ("autoencoder", "plate", "text_field"):
    wait_for(f + ".safetensors", args.wait)
st = load_file(f"{WORK}/autoencoder.safetensors")
scale = float(st.pop("_scale"))
ae = Autoencoder(AutoencoderConfig()).to(dev)
ae.load_state_dict({k: v.float() for k, v in st.items()})
plate = Plate(PlateConfig()).to(dev)
plate.load_state_dict({k: v.float() for k, v in load_file(f"{WORK}/plate.safetensors").items()})
text = TextEncoder(TextConfig()).to(dev)
text.load_state_dict({k[5:]: v.float() for k, v in load_file(f"{WORK}/text_field.safetensors").items() if k.startswith("text.")})
ae, plate = (n.to(memory_format=torch.channels_last).requires_grad_(False) for n in (ae, plate))
text.requires_grad_(False)
cap = np.load(args.data + "/captions.npz")
ids, kinds, hids, hkinds = (torch.from_numpy(cap[k].astype(np.int64)).to(dev) for k in ("train_ids", "train_kinds", "held_ids", "held_kinds"))
gen, held_gen = Clips(bank, stamps, FR, SIZE), Clips(held_bank, stamps, FR, SIZE)


@torch.no_grad()
def encode(x):
    with torch.autocast(dev, torch.bfloat16):
        return torch.cat([ae.encode(c.contiguous(memory_format=torch.channels_last)) for c in x.split(128)]).float() * scale


@torch.no_grad()
def decode(z):
    with torch.autocast(dev, torch.bfloat16):
        return torch.cat([ae.decode(c) for c in (z / scale).split(128)]).float()


@torch.no_grad()
def guide_of(c, smooth=False, noise=0.012):
    fill, hole = G.fill_and_hole(c["frame0"], c["mask"])
    with torch.autocast(dev, torch.bfloat16):
        p = fill if smooth else plate(fill, hole).float()
    D = c["D"] * (1 + noise * torch.randn(len(fill), 1, 1, 1, 1, device=dev))   # the field net is not exact
    return G.build(c["frame0"], c["mask"], p, hole, c["P"], D, c["gate"])


@torch.no_grad()
def fresh(n):
    i = torch.randint(len(ids), (n,), device=dev)
    k = kinds[i].float()
    m = uniform(n, .1, 1, dev)
    c = gen.render(k, m)
    g, alpha, valid = guide_of(c)
    maps = G.latent_maps(alpha, valid)
    zt, zg = encode(c["truth"]), encode(g)
    ctx = text(ids[i])[0]
    view = lambda t: t.view(n, FR, *t.shape[1:]).half()
    # Mode A material: the mask of frame 0 (its other channel is 0 by definition).
    return dict(t=view(zt), g=view(zg), maps=view(maps), m0=G.F.avg_pool2d(c["mask"], 8).half(), ctx=ctx.half(), m=m)


ring = None
for i in range(0, RING, FRESH):
    c = fresh(FRESH)
    if ring is None:
        ring = {k: torch.empty(RING, *v.shape[1:], dtype=v.dtype, device=dev) for k, v in c.items()}
    for k, v in c.items():
        ring[k][i:i + FRESH] = v
    if time.time() - START > 60 + args.wait and i > RING // 4:   # slow card: start with what is there
        for k in ring:
            ring[k] = ring[k][:i + FRESH].clone()
        RING = i + FRESH
        break
say("unet", "ring filled:", RING, "clips; residual rms", float((ring["t"][:64].float() - ring["g"][:64].float()).pow(2).mean().sqrt()),
    "latent rms", float(ring["t"][:64].float().pow(2).mean().sqrt()))


def save(full_state):
    names, vals = [n for n, _ in net.named_parameters()], [e.half().contiguous().cpu() for e in ema]
    shards, size = [{}, {}, {}], 0
    total = sum(v.numel() for v in vals)
    for n, v in zip(names, vals):
        shards[min(2, size * 3 // total)][n] = v
        size += v.numel()
    for i, s in enumerate(shards):
        save_file(s, f"{OUT}/unet-0000{i + 1}-of-00003.safetensors")
    if full_state:
        torch.save(dict(net=net.state_dict(), ema=ema, muon=muon.buf, adam=adam.state_dict(), step=it), state_file)


t_train, it, last_say, last_save, at, run_loss = time.time(), step0, time.time(), time.time(), 0, [0.0, 0.0]
end = START + args.seconds - (5 if args.tiny else 42)     # the rest is for evaluation and saving
acc = torch.zeros(2, device=dev)
n_acc = 0
while time.time() < end:
    frac = (time.time() - t_train) / max(1, end - t_train)
    warm = min(1, (it - step0 + 1) / 60)
    lr = args.lr * warm * ((1 - .97 * max(0, (frac - .1) / .9)) if args.decay else 1)
    if it % 1 == 0:
        for k, v in fresh(FRESH).items():
            ring[k][at:at + FRESH] = v
        at = (at + FRESH) % (RING - RING % FRESH)
    j = torch.randint(RING, (B,), device=dev)
    t, g, maps, ctx, m = (ring[k][j].float() for k in ("t", "g", "maps", "ctx", "m"))
    # the last eighth of the batch is mode A: the first frame repeated, its mask, validity 0
    a = max(1, B // 8)
    g[-a:] = t[-a:, :1]
    maps[-a:, :, 0] = ring["m0"][j][-a:].float()
    maps[-a:, :, 1] = 0
    drop = torch.rand(B, 1, 1, device=dev) < .05
    ctx = torch.where(drop, torch.zeros_like(ctx), ctx)
    y = (t - g).flatten(0, 1)
    tau = torch.sigmoid(torch.randn(B, device=dev) * 1.1 + .4)
    u = torch.rand(B, device=dev)
    tau = torch.where(u < .3, torch.ones_like(tau), torch.where(u < .4, .85 + .15 * torch.rand(B, device=dev), tau))
    n = clip_noise(y.shape, FR, device=dev)
    tb = tau.repeat_interleave(FR)[:, None, None, None]
    x = (1 - tb) * y + tb * n
    w = 1 / (tau ** 2 + .08)
    w[-a:] *= .15
    unknown = 1 - maps.flatten(0, 1)[:, 1:]
    w = w.repeat_interleave(FR)[:, None, None, None] * (1 + 1.5 * unknown)
    loss = loss_of(x, g.flatten(0, 1), maps.flatten(0, 1), y, tau, ctx, m, w)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    muon.step(2e-3 * lr)
    for grp in adam.param_groups:
        grp["lr"] = 1e-3 * lr
    adam.step()
    for p in params:
        p.grad = None
    it += 1
    torch._foreach_lerp_(ema, [p.detach() for p in params], 1 - min(.998, (it + 1) / (it + 20)))
    acc[0] += loss.detach()
    n_acc += 1
    if time.time() - last_say > 25:
        say("unet", it, f"loss {float(acc[0]) / n_acc:.4f} ({n_acc / (time.time() - last_say):.2f} it/s) lr {lr:.3f}")
        acc.zero_()
        n_acc, last_say = 0, time.time()
    if time.time() - last_save > 120:
        save(False)
        last_save = time.time()
save(True)
say("unet", "saved at", it)

# Held-out evaluation: other photographs, held-out captions, exact motion (the field net is judged by its own script).
raw = [p.detach().clone() for p in params]
for p, e in zip(params, ema):
    p.data.copy_(e)
from sampler import sample_residual
torch.manual_seed(99)
tot = {}


def add(name, err, region):
    e = (err ** 2).mean(1, keepdim=True) * region
    a = tot.setdefault(name, [0.0, 0.0])
    a[0] += float(e.sum()) / 4
    a[1] += float(region.sum())


rounds = 2 if args.tiny else 12
for r in range(rounds):
    nb = 2 if args.tiny else 8
    i = torch.randint(len(hids), (nb,), device=dev)
    k, m = hkinds[i].float(), uniform(nb, .2, 1, dev)
    with torch.no_grad():
        c = held_gen.render(k, m, camera=False, exact_mask=True)
        g, alpha, valid = guide_of(c, noise=0.0)
        gs, _, _ = guide_of(c, smooth=True, noise=0.0)
        z, zs = encode(g), encode(gs)
        ctx = text(hids[i])[0]
        D = (c["D"].norm(dim=-1) > 1 / 128).view(-1, 1, SIZE, SIZE).float()
        obj = (c["object"] > .95).float()
        unc = (c["source"] > .05).float() * (c["object"] < .05).float() * (1 - c["gate"].repeat_interleave(FR)[:, None, None, None])
        rest_ = ((c["source"] < .01) & (c["object"] < .01)).float()
        rest_ = -G.F.max_pool2d(-rest_, 9, 1, 4)
        outs = {"ae": decode(encode(c["truth"])), "baseline": decode(zs), "plate guide": decode(z)}
        for steps in (1, 4):
            res = sample_residual(lambda *a: net(*a[:-1], FR).float(), clip_noise(z.shape, FR, device=dev), z, G.latent_maps(alpha, valid), ctx, m, FR, steps)
            outs[f"unet{steps}"] = decode(z + res)
        outs["unet4+detail"] = G.detail_return(outs["unet4"], g, outs["plate guide"], valid)
        outs["unet1+detail"] = G.detail_return(outs["unet1"], g, outs["plate guide"], valid)
        outs["guide+detail"] = G.detail_return(outs["plate guide"], g, outs["plate guide"], valid)
        for name, o in outs.items():
            d = o.clamp(-1, 1) - c["truth"]
            add(name + " inside", d, obj)
            add(name + " uncovered", d, unc)
            add(name + " outside", d, rest_)
say("unet", "held-out PSNR:", {k: round(-10 * math.log10(v[0] / max(v[1], 1) + 1e-9), 2) for k, v in tot.items()})
v = torch.cat([o.view(nb, FR, 3, SIZE, SIZE)[:, [0, FR // 2, FR - 1]].transpose(0, 1).flatten(0, 1)[:, :, ::2, ::2] for o in (c["truth"], outs["baseline"], outs["unet4+detail"])])
import cv2
img = ((v.clamp(-1, 1) + 1) * 127.5).byte().cpu().view(9, nb, 3, SIZE // 2, SIZE // 2).permute(0, 3, 1, 4, 2).reshape(9 * SIZE // 2, nb * SIZE // 2, 3).numpy()
cv2.imwrite(f"{OUT}/samples.jpg", img[..., ::-1], [1, 85])
