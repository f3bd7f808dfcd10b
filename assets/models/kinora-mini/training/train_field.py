"""Trains caption encoder and motion field together; needs no pixels. usage: train_field.py DATA SECONDS [tiny]"""
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import field as fd
import motions as M
from data import blob_alpha, uniform
from text import TextConfig, TextEncoder
from train_common import cosine, half_state, save_both, say

DATA, SECONDS, TINY = sys.argv[1], float(sys.argv[2]), len(sys.argv) > 3
dev = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(2)
z = np.load(DATA + "/captions.npz")
ids, kinds, hids, hkinds = (torch.from_numpy(z[k].astype(np.int64)).to(dev) for k in ("train_ids", "train_kinds", "held_ids", "held_kinds"))
kinds, hkinds = kinds.float(), hkinds.float()
text, net = TextEncoder(TextConfig()).to(dev), fd.Field(fd.FieldConfig()).to(dev)
FINE = os.path.exists(DATA + "/text_field.safetensors")   # weights of an earlier session: refine them
if not FINE:
    text.text_model.embeddings.token_embedding.weight.data.copy_(load_file(DATA + "/table.safetensors")["table"].float())
else:
    st = load_file(DATA + "/text_field.safetensors")
    text.load_state_dict({k[5:]: v.float() for k, v in st.items() if k.startswith("text.")})
    net.load_state_dict({k[6:]: v.float() for k, v in st.items() if k.startswith("field.")})
params = [p for p in [*text.parameters(), *net.parameters()] if p.requires_grad]
opt = torch.optim.AdamW(params, lr=1e-3, betas=(.9, .98), weight_decay=.02, fused=dev == "cuda")
mask_points = M.pixel_grid(64, 64, dev)
cells = fd.grid_points(dev)


def batch(n, k):
    """Random object shapes, magnitudes and times for kinds k -> inputs and exact displacements in px of 256."""
    mask = blob_alpha(mask_points, torch.rand(n, 2, device=dev) * 1.3 - .65, uniform(n, .1, .65, dev), soft=32.0)
    geom, m20 = M.geometry(mask), fd.mask_grid(mask)
    m, s = uniform(n, .08, 1.0, dev), torch.rand(n, 4, device=dev)
    pts = cells + (torch.rand(2, device=dev) - .5) * .12
    return m20, geom, m, s, pts, 128 * M.displacement(k, m, s, geom, pts)


@torch.no_grad()
def evaluate(i, k, n=4000):
    text.eval()
    i, k = i[:n], k[:n]
    g = torch.random.get_rng_state()
    torch.manual_seed(77)
    m20, geom, m, _, pts, _ = batch(len(i), k)
    s = torch.tensor([.3, .62, .85, 1.0], device=dev).expand(len(i), -1)   # s = 1 alone would hide sway
    truth = 128 * M.displacement(k, m, s, geom, pts)
    _, pooled, logits = text(i)
    coef, free, gate = net(m20, geom, pooled, m, s)
    d = 128 * fd.evaluate(coef, free, geom, pts)
    near = (m20.flatten(1) > .3).float()[:, None, :, None]
    near = near + (near.sum(2, keepdim=True) == 0)
    epe = ((d - truth).norm(dim=-1, keepdim=True) * near).sum((1, 2, 3)) / (near.sum((1, 2, 3)) * 4)
    dot = ((d * truth).sum(-1, keepdim=True) * near).sum((1, 2, 3))
    cos = dot / (((d ** 2).sum(-1, keepdim=True) * near).sum((1, 2, 3)).sqrt() * ((truth ** 2).sum(-1, keepdim=True) * near).sum((1, 2, 3)).sqrt() + 1e-6)
    still = (k[:, M.INDEX["still"]] + k[:, M.UNRECOGNISED]) > 0
    right = torch.where(still, epe < .5, cos > .7)
    kind_ok = ((logits > 0) == (k > .5)).all(1)
    ratio = (dot / ((truth ** 2).sum(-1, keepdim=True) * near).sum((1, 2, 3)).clamp_min(1e-3))[~still]
    per = {n: (round(float(epe[s].mean()), 2), round(float(right[s].float().mean()), 3))
           for n, j in M.INDEX.items() if (s := (k[:, j] > 0) & (k.sum(1) == 1)).any()}
    pair = k.sum(1) > 1
    per["pairs"] = (round(float(epe[pair].mean()), 2), round(float(right[pair].float().mean()), 3))
    torch.random.set_rng_state(g)
    gate_ok = float(((gate > 0) == (M.gate(k) > 0)).float().mean())
    return dict(epe=round(float(epe.mean()), 3), median=round(float(epe.median()), 3), right=round(float(right.float().mean()), 4),
                kinds=round(float(kind_ok.float().mean()), 4), gate=round(gate_ok, 4), ratio=round(float(ratio.mean()), 3)), per


# A processor takes small batches with small steps: enough to refine, not to begin.
B, RATE = (8, 1.5e-3) if TINY else (1024, 6e-4 if FINE else 1.5e-3) if dev == "cuda" else (128, 1.5e-4)
t0, it, last = time.time(), 0, time.time()
while (frac := (time.time() - t0) / SECONDS) < 1:
    for g in opt.param_groups:
        g["lr"] = RATE * min(1, (it + 1) / 200) * cosine(frac, warm=0.0)
    i = torch.randint(len(ids), (B,), device=dev)
    tok, k = ids[i], kinds[i]
    if it % 2:   # unknown words must not matter: swap a few ordinary tokens for random ones
        odd = (torch.rand(tok.shape, device=dev) < .02) & (tok < 49406)
        tok = torch.where(odd, torch.randint(500, 49000, tok.shape, device=dev), tok)
    m20, geom, m, s, pts, truth = batch(B, k)
    with torch.autocast(dev, torch.bfloat16, enabled=False):
        _, pooled, logits = text(tok, noise=.25)
        coef, free, gate = net(m20, geom, pooled, m, s)
        d = 128 * fd.evaluate(coef, free, geom, pts)
    near = .3 + (m20.flatten(1) > .2).float()[:, None, :, None]
    size = (truth.norm(dim=-1, keepdim=True) * near).sum((1, 2, 3)) / near.sum((1, 2, 3)) / 4
    err = F.smooth_l1_loss(d, truth, reduction="none", beta=1.0) * near / near.mean((1, 2, 3), keepdim=True)
    loss_f = (err.mean((1, 2, 3)) / (size + 4)).mean()
    loss_k = F.binary_cross_entropy_with_logits(logits, k)
    loss_g = F.binary_cross_entropy_with_logits(gate, M.gate(k))
    loss = loss_f + 3 * loss_k + .3 * loss_g + 1e-3 * free.abs().mean()
    opt.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    opt.step()
    it += 1
    if time.time() - last > (30 if not TINY else 1):
        last = time.time()
        say("field", it, f"loss {float(loss_f):.4f} kinds {float(loss_k):.4f}", "train", evaluate(ids, kinds, 64 if TINY else 4000)[0],
            "held out", evaluate(hids, hkinds, 64 if TINY else 8000)[0])
for name, (i, k) in (("train", (ids, kinds)), ("held out", (hids, hkinds))):
    a, per = evaluate(i, k, 64 if TINY else 8000)
    say("field", "done", it, name, a, per)
save_both({**{"text." + k: v for k, v in half_state(text).items()}, **{"field." + k: v for k, v in half_state(net).items()}}, "text_field.safetensors")
