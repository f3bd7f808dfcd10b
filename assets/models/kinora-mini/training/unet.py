"""Denoising UNet: the SD-1.5 layout inflated with AnimateDiff motion modules, as one general class.

Module names follow diffusers (`down_blocks.i.resnets.j.norm1` ...), so public checkpoints and
kinora-mini share one reader. Frames are folded into the batch: every picture tensor is [B*F, C, H, W],
clip-major, and `num_frames` says F. `UNetConfig` lists every switch.
"""
import math
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class UNetConfig:
    in_channels: int = 34                 # 16 noisy residual + 16 guide latents + mask + validity
    out_channels: int = 16
    block_out_channels: list = field(default_factory=lambda: [96, 192, 224])
    layers_per_block: list = field(default_factory=lambda: [2, 1, 1])   # up path: one more
    attention_levels: list = field(default_factory=lambda: [False, True, True])
    motion_levels: list = field(default_factory=lambda: [True, True, True])
    mid_attention: bool = True
    mid_motion: bool = True
    num_attention_heads: list = field(default_factory=lambda: [3, 6, 7])
    motion_num_attention_heads: list = field(default_factory=lambda: [3, 6, 7])
    norm_num_groups: int = 16
    norm_eps: float = 1e-5
    cross_attention_dim: int = 192
    ff_mult: int = 2
    motion_num_self_attention: int = 1    # AnimateDiff: 2
    motion_max_seq_length: int = 32
    resnet_time_scale_shift: str = "scale_shift"   # "default" adds instead
    first_frame_attention: bool = True    # keys and values of attn1: own frame, then frame 0
    resnet_norm_over_frames: bool = False
    temporal_norm_over_frames: bool = False
    use_linear_projection: bool = True    # proj_in/out of spatial transformers: linear, or 1x1 convolution
    time_embed_dim: int = 256


def sinusoid(v, dim):
    """[B] -> [B, dim]: cosines first, then sines, frequencies 10000^(-i/half)."""
    half = dim // 2
    freq = torch.exp(-math.log(10000.0) * torch.arange(half, device=v.device, dtype=torch.float32) / half)
    a = v.float()[:, None] * freq[None]
    return torch.cat([a.cos(), a.sin()], -1)


def frame_positions(n, dim, device, dtype):
    """[n, dim]: sine at even, cosine at odd places (AnimateDiff)."""
    pos = torch.arange(n, device=device, dtype=torch.float32)[:, None]
    a = pos * torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / dim))
    return torch.stack([a.sin(), a.cos()], -1).flatten(1).to(dtype)


class MlpEmbedding(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.linear_1 = nn.Linear(cin, cout)
        self.linear_2 = nn.Linear(cout, cout)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


def group_norm(norm, x, frames, over_frames):
    """GroupNorm per frame, or with statistics over all frames of a clip."""
    if not over_frames or frames == 1:
        return norm(x)
    n, c, h, w = x.shape
    y = x.reshape(n // frames, frames, c, h, w).transpose(1, 2)
    return norm(y).transpose(1, 2).reshape(n, c, h, w)


class Resnet(nn.Module):
    def __init__(self, cin, cout, cfg):
        super().__init__()
        self.film = cfg.resnet_time_scale_shift == "scale_shift"
        self.over_frames = cfg.resnet_norm_over_frames
        self.norm1 = nn.GroupNorm(cfg.norm_num_groups, cin, eps=cfg.norm_eps)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.time_emb_proj = nn.Linear(cfg.time_embed_dim, cout * (2 if self.film else 1))
        self.norm2 = nn.GroupNorm(cfg.norm_num_groups, cout, eps=cfg.norm_eps)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None

    def forward(self, x, temb, frames):
        h = self.conv1(F.silu(group_norm(self.norm1, x, frames, self.over_frames)))
        t = self.time_emb_proj(F.silu(temb)).repeat_interleave(frames, 0)[:, :, None, None]
        if self.film:
            scale, shift = t.chunk(2, 1)
            h = group_norm(self.norm2, h, frames, self.over_frames) * (1 + scale) + shift
        else:
            h = group_norm(self.norm2, h + t, frames, self.over_frames)
        h = self.conv2(F.silu(h))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class Attention(nn.Module):
    """Multi-head attention without q/k/v bias; q [N, T, C], kv [N, S, D] -> [N, T, C]."""

    def __init__(self, dim, kv_dim, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(kv_dim, dim, bias=False)
        self.to_v = nn.Linear(kv_dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, x, kv):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for t in (self.to_q(x), self.to_k(kv), self.to_v(kv)))
        return self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TemporalAttention(Attention):
    """The same attention over F frames at every place; x [B, F, P, C]. Written as two small batched
    products because the sequences are far too short for a flash kernel."""

    def forward(self, x, kv=None):
        b, f, p, c = x.shape
        d = c // self.heads
        q, k, v = (t.reshape(b, f, p, self.heads, d).permute(0, 2, 3, 1, 4).reshape(-1, f, d)
                   for t in (self.to_q(x), self.to_k(x), self.to_v(x)))
        a = torch.softmax(torch.bmm(q, k.transpose(1, 2)).float() * d ** -0.5, -1).to(v.dtype)
        o = torch.bmm(a, v).reshape(b, p, self.heads, f, d).permute(0, 3, 1, 2, 4).reshape(b, f, p, c)
        return self.to_out[0](o)


class Geglu(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        self.proj = nn.Linear(dim, inner * 2)

    def forward(self, x):
        a, gate = self.proj(x).chunk(2, -1)
        return a * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, dim, mult):
        super().__init__()
        self.net = nn.ModuleList([Geglu(dim, dim * mult), nn.Identity(), nn.Linear(dim * mult, dim)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class SpatialBlock(nn.Module):
    def __init__(self, dim, heads, cfg):
        super().__init__()
        self.first_frame = cfg.first_frame_attention
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, cfg.cross_attention_dim, heads)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim, cfg.ff_mult)

    def forward(self, x, context, frames):
        n, t, c = x.shape
        h = kv = self.norm1(x)
        if self.first_frame:
            h5 = h.reshape(n // frames, frames, t, c)
            kv = torch.cat([h5, h5[:, :1].expand(-1, frames, -1, -1)], 2).reshape(n, 2 * t, c)
        x = x + self.attn1(h, kv)
        # The caption is one per clip, so the queries of all its frames share one set of keys.
        q = self.norm2(x).reshape(n // frames, frames * t, c)
        x = x + self.attn2(q, context).reshape(n, t, c)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, dim, heads, cfg):
        super().__init__()
        self.linear = cfg.use_linear_projection
        self.norm = nn.GroupNorm(cfg.norm_num_groups, dim, eps=1e-6)
        proj = (lambda: nn.Linear(dim, dim)) if self.linear else (lambda: nn.Conv2d(dim, dim, 1))
        self.proj_in = proj()
        self.transformer_blocks = nn.ModuleList([SpatialBlock(dim, heads, cfg)])
        self.proj_out = proj()

    def forward(self, x, context, frames):
        n, c, h, w = x.shape
        y = self.norm(x)
        if self.linear:
            y = self.proj_in(y.permute(0, 2, 3, 1).reshape(n, h * w, c))
        else:
            y = self.proj_in(y).permute(0, 2, 3, 1).reshape(n, h * w, c)
        y = self.transformer_blocks[0](y, context, frames)
        if self.linear:
            y = self.proj_out(y).reshape(n, h, w, c).permute(0, 3, 1, 2)
        else:
            y = self.proj_out(y.reshape(n, h, w, c).permute(0, 3, 1, 2))
        return x + y


class MotionBlock(nn.Module):
    def __init__(self, dim, heads, cfg):
        super().__init__()
        self.double = cfg.motion_num_self_attention == 2
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = TemporalAttention(dim, dim, heads)
        if self.double:
            self.norm2 = nn.LayerNorm(dim)
            self.attn2 = TemporalAttention(dim, dim, heads)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim, cfg.ff_mult)

    def forward(self, x):  # [B, F, P, C]
        pe = frame_positions(x.shape[1], x.shape[3], x.device, x.dtype)[None, :, None]
        x = x + self.attn1(self.norm1(x) + pe)
        if self.double:
            x = x + self.attn2(self.norm2(x) + pe)
        return x + self.ff(self.norm3(x))


class MotionModule(nn.Module):
    def __init__(self, dim, heads, cfg):
        super().__init__()
        self.over_frames = cfg.temporal_norm_over_frames
        self.norm = nn.GroupNorm(cfg.norm_num_groups, dim, eps=1e-6)
        self.proj_in = nn.Linear(dim, dim)
        self.transformer_blocks = nn.ModuleList([MotionBlock(dim, heads, cfg)])
        self.proj_out = nn.Linear(dim, dim)

    def forward(self, x, frames):
        n, c, h, w = x.shape
        y = group_norm(self.norm, x, frames, self.over_frames)
        y = self.proj_in(y.permute(0, 2, 3, 1).reshape(n // frames, frames, h * w, c))
        y = self.proj_out(self.transformer_blocks[0](y))
        return x + y.reshape(n, h, w, c).permute(0, 3, 1, 2)


class Resample(nn.Module):
    """`conv` is the only parameter: stride 2 on the way down, nearest x2 before it on the way up."""

    def __init__(self, dim, up):
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(dim, dim, 3, stride=1 if up else 2, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else x)


class Level(nn.Module):
    """One resolution of either path: resnets, each followed by its spatial and motion module, then resample."""

    def __init__(self, cins, cout, level, cfg, resample):
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(c, cout, cfg) for c in cins])
        heads, mheads = cfg.num_attention_heads[level], cfg.motion_num_attention_heads[level]
        if cfg.attention_levels[level]:
            self.attentions = nn.ModuleList([SpatialTransformer(cout, heads, cfg) for _ in cins])
        if cfg.motion_levels[level]:
            self.motion_modules = nn.ModuleList([MotionModule(cout, mheads, cfg) for _ in cins])
        self.has_attention, self.has_motion = cfg.attention_levels[level], cfg.motion_levels[level]
        if resample:
            setattr(self, resample, nn.ModuleList([Resample(cout, resample == "upsamplers")]))
        self.resample = resample

    def layer(self, j, x, temb, context, frames):
        x = self.resnets[j](x, temb, frames)
        if self.has_attention:
            x = self.attentions[j](x, context, frames)
        if self.has_motion:
            x = self.motion_modules[j](x, frames)
        return x


class MidBlock(nn.Module):
    def __init__(self, dim, cfg):
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(dim, dim, cfg), Resnet(dim, dim, cfg)])
        self.attentions = nn.ModuleList(
            [SpatialTransformer(dim, cfg.num_attention_heads[-1], cfg)] if cfg.mid_attention else [])
        self.motion_modules = nn.ModuleList(
            [MotionModule(dim, cfg.motion_num_attention_heads[-1], cfg)] if cfg.mid_motion else [])

    def forward(self, x, temb, context, frames):
        x = self.resnets[0](x, temb, frames)
        for m in self.attentions:
            x = m(x, context, frames)
        for m in self.motion_modules:
            x = m(x, frames)
        return self.resnets[1](x, temb, frames)


class UNet(nn.Module):
    def __init__(self, cfg: UNetConfig):
        super().__init__()
        self.cfg = cfg
        ch, layers = cfg.block_out_channels, cfg.layers_per_block
        self.conv_in = nn.Conv2d(cfg.in_channels, ch[0], 3, padding=1)
        self.time_embedding = MlpEmbedding(ch[0], cfg.time_embed_dim)
        self.motion_embedding = MlpEmbedding(ch[0], cfg.time_embed_dim)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        last = len(ch) - 1
        skips, c = [ch[0]], ch[0]
        for i, w in enumerate(ch):
            self.down_blocks.append(Level([c] + [w] * (layers[i] - 1), w, i, cfg, "downsamplers" if i < last else None))
            skips += [w] * layers[i] + ([w] if i < last else [])
            c = w
        self.mid_block = MidBlock(c, cfg)
        for i in range(last, -1, -1):
            cins = []
            for _ in range(layers[i] + 1):
                cins.append(c + skips.pop())
                c = ch[i]
            self.up_blocks.append(Level(cins, ch[i], i, cfg, "upsamplers" if i > 0 else None))
        self.conv_norm_out = nn.GroupNorm(cfg.norm_num_groups, ch[0], eps=cfg.norm_eps)
        self.conv_out = nn.Conv2d(ch[0], cfg.out_channels, 3, padding=1)
        self.zero_init()

    def zero_init(self):
        """Untrained output is 0 (so the clip equals the guide), and every branch starts as identity."""
        zero = [self.conv_out, self.motion_embedding.linear_2]
        for m in self.modules():
            if isinstance(m, (MotionModule, SpatialTransformer)):
                zero.append(m.proj_out)
            if isinstance(m, Resnet):
                zero.append(m.conv2)
        for m in zero:
            nn.init.zeros_(m.weight)
            nn.init.zeros_(m.bias)

    def forward(self, x, timestep, context, strength, num_frames):
        """x [B*F, in, H, W]; timestep [B] (0..1000); context [B, T, D]; strength [B] or None
        (0..1000 for kinora-mini) -> [B*F, out, H, W]."""
        f, dim = num_frames, self.cfg.block_out_channels[0]
        temb = self.time_embedding(sinusoid(timestep, dim).to(x.dtype))
        if strength is not None:
            temb = temb + self.motion_embedding(sinusoid(strength, dim).to(x.dtype))
        x = self.conv_in(x)
        skips = [x]
        for blk in self.down_blocks:
            for j in range(len(blk.resnets)):
                x = blk.layer(j, x, temb, context, f)
                skips.append(x)
            if blk.resample:
                x = blk.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block(x, temb, context, f)
        for blk in self.up_blocks:
            for j in range(len(blk.resnets)):
                x = blk.layer(j, torch.cat([x, skips.pop()], 1), temb, context, f)
            if blk.resample:
                x = blk.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))
