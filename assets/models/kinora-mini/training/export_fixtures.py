"""Writes small random-weight parity fixtures for the Rust port: one safetensors file per network, holding
`config` (JSON in the metadata), weights under `w.<key>`, inputs under `in.*`, named intermediates under
`mid.*` and outputs under `out.*`; all f32. usage: export_fixtures.py OUT_DIR
"""
import json
import sys
from dataclasses import asdict

import torch
from safetensors.torch import save_file

import field as fd
import guide as G
import motions as M
from autoencoder import Autoencoder, AutoencoderConfig
from plate import Plate, PlateConfig
from sampler import clip_noise, sample_residual
from text import TextConfig, TextEncoder
from tokenizer import ClipBpe
from unet import UNet, UNetConfig


def randomise(net, gain=1.0):
    """Every parameter random (zero-initialised ones too), sized so that activations stay near 1."""
    for name, p in net.named_parameters():
        if p.dim() > 1:
            p.data = torch.randn_like(p) * gain / p[0].numel() ** 0.5
        elif name.endswith("weight"):
            p.data = 1 + 0.2 * torch.randn_like(p)
        else:
            p.data = 0.2 * torch.randn_like(p)
    return net.eval()


def watch(net, names, mid):
    """Records the outputs of the named submodules."""
    for n in names:
        def hook(_m, _i, out, n=n):
            mid.setdefault(n, out[0] if isinstance(out, tuple) else out)
        net.get_submodule(n).register_forward_hook(hook)


def write(path, config, weights, **groups):
    t = {f"w.{k}": v for k, v in weights.items()}
    for g, d in groups.items():
        t.update({f"{g}.{k}": v for k, v in d.items()})
    t = {k: (v if v.dtype in (torch.int64,) else v.float()).detach().contiguous().clone() for k, v in t.items()}
    save_file(t, path, metadata={"config": json.dumps(config)})
    print(path.split("/")[-1], sum(v.numel() * v.element_size() for v in t.values()) // 1000, "kB")


TINY_UNET = dict(in_channels=10, out_channels=4, block_out_channels=[16, 32], layers_per_block=[2, 1],
                 attention_levels=[False, True], motion_levels=[True, True], num_attention_heads=[1, 2],
                 motion_num_attention_heads=[1, 2], norm_num_groups=8, cross_attention_dim=12, time_embed_dim=16)


def unet(out):
    # (file, switches): kinora-mini's own, and the SD-1.5 + AnimateDiff switches of the same class.
    sd = dict(TINY_UNET, block_out_channels=[8, 16], norm_num_groups=4, ff_mult=4, motion_num_self_attention=2,
              resnet_time_scale_shift="default", first_frame_attention=False, resnet_norm_over_frames=True,
              temporal_norm_over_frames=True, use_linear_projection=False, attention_levels=[True, False],
              layers_per_block=[1, 1])
    mini = dict(TINY_UNET, block_out_channels=[8, 16], norm_num_groups=4)
    for name, c in (("unet_mini", mini), ("unet_sd_switches", sd)):
        cfg = UNetConfig(**c)
        net, mid = randomise(UNet(cfg), 0.8), {}
        watch(net, ["conv_in", "time_embedding", "motion_embedding", "down_blocks.0.resnets.0",
                    "down_blocks.0.motion_modules.0", "mid_block.attentions.0", "mid_block", "up_blocks.0.resnets.0"], mid)
        if hasattr(net.down_blocks[0], "attentions"):
            watch(net, ["down_blocks.0.attentions.0"], mid)
        x, ctx = torch.randn(2 * 3, 10, 8, 8), torch.randn(2, 5, 12)
        t, s = torch.tensor([437.0, 912.5]), torch.tensor([600.0, 120.0])
        y = net(x, t, ctx, s, 3)
        write(f"{out}/{name}.safetensors", asdict(cfg), net.state_dict(), mid=mid, out={"sample": y},
              **{"in": dict(sample=x, timestep=t, context=ctx, strength=s, num_frames=torch.tensor([3]))})


def autoencoder(out):
    cfg = AutoencoderConfig(latent_channels=4, encoder_block_out_channels=[8, 12, 16], num_encoder_blocks=[1, 1, 1],
                            decoder_block_out_channels=[16, 12, 8], num_decoder_blocks=[1, 2, 1], scaling_factor=0.7)
    net, mid = randomise(Autoencoder(cfg), 1.2), {}
    watch(net, ["encoder.layers.0", "encoder.layers.1", "decoder.layers.2"], mid)
    x = torch.rand(2, 3, 40, 32) * 2 - 1
    z = net.encode(x)
    write(f"{out}/autoencoder.safetensors", asdict(cfg), net.state_dict(), mid=mid,
          out={"latent": z, "decoded": net.decode(z)}, **{"in": {"picture": x}})


def text(out, vocab):
    cfg = TextConfig(vocab_size=64, table_width=6, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                     intermediate_size=48, max_position_embeddings=10, eos_token_id=63, num_kinds=5)
    net, mid = randomise(TextEncoder(cfg)), {}
    watch(net, ["text_model.embeddings", "text_model.encoder.layers.0"], mid)
    ids = torch.tensor([[62, 3, 9, 17, 63, 63, 63, 63, 63, 63], [62, 5, 5, 40, 21, 8, 2, 1, 30, 63]])
    states, pooled, kinds = net(ids)
    write(f"{out}/text.safetensors", asdict(cfg), net.state_dict(), mid=mid,
          out=dict(states=states, pooled=pooled, kinds=kinds), **{"in": {"ids": ids}})
    bpe = ClipBpe(vocab)
    cases = ["Drift to the LEFT", "make it  spin counter-clockwise!", "the cat's 3 tails sway, gently", "", "café naïve 東京 ☃ 2nd",
             "a &amp; b", "leftwards rightward anticlockwise undulating", "one two three four five six seven eight nine ten "
             "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty twentyone twentytwo twentythree"]
    json.dump([{"text": c, "ids": bpe.encode(c)} for c in cases], open(f"{out}/tokenizer.json", "w"), ensure_ascii=False, indent=0)


def blob(b, h, w, cx, cy, r):
    p = M.pixel_grid(h, w)
    d = ((p[..., 0] - cx) ** 2 + 1.5 * (p[..., 1] - cy) ** 2).sqrt()
    return ((r - d) * 12 + 0.5).clamp(0, 1)[None, None].repeat(b, 1, 1, 1)


def field(out):
    cfg = fd.FieldConfig(text_dim=8, hidden=16, conv_width=8, conv_blocks=2)
    net = randomise(fd.Field(cfg))
    mask = torch.cat([blob(1, 48, 64, -.2, .1, .5), blob(1, 48, 64, .3, -.2, .35)])
    geom, m20 = M.geometry(mask), fd.mask_grid(mask)
    pooled, m, s = torch.randn(2, 8), torch.tensor([.4, .9]), torch.tensor([[0, .3, .6, 1.], [0, .1, .5, .8]])
    coef, free, gate = net(m20, geom, pooled, m, s)
    pts = M.pixel_grid(12, 16) * 1.4
    t = fd.time_functions(s, m)
    write(f"{out}/field.safetensors", asdict(cfg), net.state_dict(),
          mid=dict(geometry=geom, mask20=m20, time=t, basis=fd.basis(pts.reshape(-1, 2), geom)),
          out=dict(coef=coef, free=free, gate=gate, displacement=fd.evaluate(coef, free, geom, pts)),
          **{"in": dict(mask=mask, pooled=pooled, magnitude=m, s=s, points=pts)})


def motions(out):
    """Exact displacements of every kind and two pairs at a few points and times."""
    names = M.KINDS + [("left", "grow"), ("up_right", "turn_ccw")]
    k = M.one_hot_kinds(names)
    n = len(names)
    geom = M.geometry(blob(1, 64, 48, .1, -.15, .4)).expand(n, -1)
    m, s = torch.full((n,), .7), torch.tensor([[0, 1 / 15, .25, .5, .73, 1.]]).expand(n, -1)
    pts = M.pixel_grid(5, 5) * 1.2
    write(f"{out}/motions.safetensors", {"names": names}, {}, out=dict(displacement=M.displacement(k, m, s, geom, pts)),
          **{"in": dict(geometry=geom, magnitude=m, s=s, points=pts)})


def plate_and_guide(out):
    cfg = PlateConfig(patch=4, widths=[16, 20], outer_blocks=1, dilations=[1, 2])
    net = randomise(Plate(cfg), 0.7)
    frame0 = torch.nn.functional.interpolate(torch.rand(2, 3, 6, 7) * 2 - 1, size=(40, 48), mode="bicubic").clamp(-1, 1)
    mask = torch.cat([blob(1, 40, 48, -.2, .1, .45), blob(1, 40, 48, .2, -.1, .4)])
    filled, hole = G.fill_and_hole(frame0, mask)
    plate = net(filled, hole)
    write(f"{out}/plate.safetensors", asdict(cfg), net.state_dict(), mid=dict(filled=filled, hole=hole), out=dict(plate=plate),
          **{"in": dict(frame0=frame0, mask=mask)})
    cam = torch.tensor([[[0, 0, 0, 0], [.1, -.05, .1, .08]], [[0, 0, 0, 0], [-.2, .1, -.15, -.1]]])
    P = G.camera_points(cam, 40, 48)
    geom = M.geometry(mask)
    D = M.displacement(M.one_hot_kinds(["up_right", "flow_left"]), torch.tensor([.8, .6]), torch.tensor([[0, .7]]).repeat(2, 1),
                       geom, P.reshape(2, 2, -1, 2)).view(2, 2, 40, 48, 2)
    gate = torch.tensor([0., 1.])
    guide, alpha, valid = G.build(frame0, mask, filled, hole, P, D, gate)
    dec = guide * 0.9 + 0.02
    write(f"{out}/guide.safetensors", {}, {}, mid=dict(points=P, displacement=D, filled=filled, hole=hole, maps=G.latent_maps(alpha, valid)),
          out=dict(guide=guide, mask=alpha, validity=valid, returned=G.detail_return(dec + .05, guide, dec, valid)),
          **{"in": dict(frame0=frame0, mask=mask, camera=cam, gate=gate, guide_decoded=dec, decoded=dec + .05)})
    odd = torch.rand(1, 3, 13, 21)
    w = (torch.rand(1, 1, 13, 21) > .5).float()
    write(f"{out}/push_pull.safetensors", {}, {}, out=dict(filled=G.push_pull(odd, w)), **{"in": dict(image=odd, weight=w)})


def sampler(out):
    cfg = UNetConfig(**dict(TINY_UNET, block_out_channels=[8, 16], norm_num_groups=4))
    net = randomise(UNet(cfg), 0.8)
    noise, g = clip_noise((2 * 4, 4, 8, 8), 4), torch.randn(8, 4, 8, 8)
    maps, ctx, m = torch.rand(8, 2, 8, 8), torch.randn(2, 5, 12), torch.tensor([.3, .8])
    y = sample_residual(net, noise, g, maps, ctx, m, 4, steps=4)
    write(f"{out}/sampler.safetensors", asdict(cfg), net.state_dict(), out=dict(residual=y),
          **{"in": dict(noise=noise, guide=g, maps=maps, context=ctx, magnitude=m, num_frames=torch.tensor([4]), steps=torch.tensor([4]))})


if __name__ == "__main__":
    torch.manual_seed(5)
    with torch.no_grad():
        o = sys.argv[1]
        unet(o), autoencoder(o), text(o, "../bpe_simple_vocab_16e6.txt.gz"), field(o), motions(o), plate_and_guide(o), sampler(o)
