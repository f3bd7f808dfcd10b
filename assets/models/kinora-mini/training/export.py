"""Splits the training outputs into the shipped files, and writes the full-weights parity fixture.

usage: export.py SESSION_DIR UNET_DIR FIXTURE_DIR   (run in this folder; then write_config.py SCALE)
"""
import sys

import torch
from safetensors.torch import load_file, save_file

import field as fd
import guide as G
import motions as M
from autoencoder import Autoencoder, AutoencoderConfig
from plate import Plate, PlateConfig
from sampler import sample_residual
from text import TextConfig, TextEncoder
from tokenizer import ClipBpe
from unet import UNet, UNetConfig

SRC, UNET, FIX = sys.argv[1:4]
f32 = lambda d: {k: v.float() for k, v in d.items()}
ae = load_file(f"{SRC}/autoencoder.safetensors")
scale = float(ae.pop("_scale"))
tf = load_file(f"{SRC}/text_field.safetensors")
parts = {"autoencoder": ae, "plate": load_file(f"{SRC}/plate.safetensors"),
         "text": {k[5:]: v for k, v in tf.items() if k.startswith("text.")},
         "field": {k[6:]: v for k, v in tf.items() if k.startswith("field.")}}
for n, d in parts.items():
    assert all(torch.isfinite(v.float()).all() for v in d.values()), n
    save_file(d, f"../{n}.safetensors", metadata={"format": "pt"})
unet = {}
for i in (1, 2, 3):
    name = f"unet-0000{i}-of-00003.safetensors"
    d = load_file(f"{UNET}/{name}")
    assert all(torch.isfinite(v.float()).all() for v in d.values())
    save_file(d, f"../{name}", metadata={"format": "pt"})
    unet.update(d)
# The fixture goes through the shipped (fp16) weights in f32: 64 x 64 picture, 2 frames, 2 steps.
nets = [Autoencoder(AutoencoderConfig(scaling_factor=scale)), Plate(PlateConfig()), TextEncoder(TextConfig()), fd.Field(fd.FieldConfig())]
for n, k in zip(nets, parts):
    n.load_state_dict(f32(parts[k]))
net = UNet(UNetConfig())
net.load_state_dict(f32(unet))
a, plate, text, field = nets
torch.manual_seed(3)
with torch.no_grad():
    frame0 = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 9) * 2 - 1, size=(64, 64), mode="bicubic").clamp(-1, 1)
    p = M.pixel_grid(64, 64)
    mask = ((.4 - ((p[..., 0] + .1) ** 2 + 1.6 * (p[..., 1] - .05) ** 2).sqrt()) * 32 + .5).clamp(0, 1)[None, None]
    ids = torch.tensor([ClipBpe("../bpe_simple_vocab_16e6.txt.gz").encode("the boat drifts to the left")])
    m, s = torch.tensor([.7]), torch.tensor([[.4, 1.0]])
    states, pooled, kinds = text(ids)
    geom = M.geometry(mask)
    coef, free, gate = field(fd.mask_grid(mask), geom, pooled, m, s)
    P = G.camera_points(torch.zeros(1, 2, 4), 64, 64)
    D = fd.evaluate(coef, free, geom, P.reshape(1, 2, -1, 2)).view(1, 2, 64, 64, 2)
    fill, hole = G.fill_and_hole(frame0, mask)
    pl = plate(fill, hole)
    guide, alpha, valid = G.build(frame0, mask, pl, hole, P, D, (gate > 0).float())
    z = a.encode(guide) * scale
    noise = torch.randn(z.shape)
    res = sample_residual(net, noise, z, G.latent_maps(alpha, valid), states, m, 2, steps=2)
    out = a.decode((z + res) / scale)
    t = dict(ids=ids, frame0=frame0, mask=mask, magnitude=m, s=s, noise=noise)
    t = {"in." + k: v for k, v in t.items()} | {"out." + k: v for k, v in dict(
        states=states, pooled=pooled, kinds=kinds, gate=gate, coef=coef, displacement=D, plate=pl, guide=guide, validity=valid,
        latent=z, residual=res, decoded=out, returned=G.detail_return(out, guide, a.decode(z / scale), valid)).items()}
    save_file({k: v.contiguous() for k, v in t.items()}, f"{FIX}/real_weights.safetensors")
    print("kinds", torch.sigmoid(kinds)[0, :4].tolist(), "D at end px", (128 * D[0, 1, 32, 28]).tolist(), "truth", -.4 * .7 * -128, "gate", float(gate))
print("scale", scale)
open("scale.txt", "w").write(str(scale))
