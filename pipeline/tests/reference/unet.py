"""Writes pipeline/tests/fixtures/unet/*.safetensors: tiny UNets, their inputs and every named result.

Needs torch, diffusers 0.42 and safetensors. Run from anywhere:  python unet.py
Layout of a file: `weights.*` under diffusers' names, `in.*` inputs, `out.<case>` results,
`mid.<case>.<module>` intermediates; pictures are channels-last. The metadata's `config` is the
Rust configuration of the first case.
"""

import json
from pathlib import Path

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention import Attention, FeedForward
from diffusers.models.embeddings import SinusoidalPositionalEmbedding, TimestepEmbedding
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from safetensors.torch import save_file
from torch import nn

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "unet"
TEXT = 12


def randomise(model, seed):
    """Every parameter away from its initial value, so that a forgotten one shows; exact in f16."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                noise = noise / parameter[0].numel() ** 0.5
            else:
                noise = 0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
            parameter.copy_(noise.half())
    return model.eval()


def last(x):
    return x.detach().permute(0, 2, 3, 1).contiguous().float()


def record(unet, into, case):
    """Hooks that keep the result of every named block."""
    handles = []
    for name, module in unet.named_modules():
        parts = name.split(".")
        wanted = ("resnets", "attentions", "motion_modules", "downsamplers", "upsamplers")
        if name in ("conv_in", "time_embedding") or (len(parts) > 2 and parts[-2] in wanted):
            def hook(_, __, result, name=name):
                result = result[0] if isinstance(result, tuple) else result
                result = getattr(result, "sample", result)
                into[f"mid.{case}.{name}"] = last(result) if result.dim() == 4 else result.detach().float()
            handles.append(module.register_forward_hook(hook))
    return handles


def save(name, unet, tensors, config):
    weights = {f"weights.{k}": v.half() for k, v in unet.state_dict().items() if "pos_embed" not in k}
    path = OUT / f"{name}.safetensors"
    data = {k: v.clone().contiguous() for k, v in (weights | tensors).items()}
    save_file(data, path, {"config": json.dumps(config)})
    print(f"{path.name}: {path.stat().st_size // 1000} kB, {len(data)} tensors")


def clip(batch, frames, height, width, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(batch, frames, height, width, channels, generator=generator)
    text = torch.randn(batch, 5, TEXT, generator=generator)
    phrase = torch.randn(batch, 4, TEXT, generator=generator)
    return sample, torch.tensor([981.0, 37.0])[:batch], text, phrase


def run_2d(unet, tensors, case, sample, time, text, trace=True):
    frames = sample.shape[1]
    handles = record(unet, tensors, case) if trace else []
    x = sample.flatten(0, 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        out = unet(x, time.repeat_interleave(frames), text.repeat_interleave(frames, 0)).sample
    for handle in handles:
        handle.remove()
    if trace:
        tensors[f"mid.{case}.time_embedding"] = tensors[f"mid.{case}.time_embedding"][::frames]
    tensors[f"out.{case}"] = last(out).reshape(*sample.shape[:-1], -1)


def run_motion(unet, tensors, case, sample, time, text, trace=True):
    handles = record(unet, tensors, case) if trace else []
    with torch.no_grad():
        text = text.repeat_interleave(sample.shape[1], 0)
        out = unet(sample.permute(0, 4, 1, 2, 3), time, text).sample
    for handle in handles:
        handle.remove()
    tensors[f"out.{case}"] = out.permute(0, 2, 3, 4, 1).contiguous()


def spatial():
    """UNet2DConditionModel: odd sizes, a plain level, two and three resnets a level."""
    unet = randomise(UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT, attention_head_dim=2), 1)
    sample, time, text, _ = clip(2, 1, 5, 7, 4, 2)
    tensors = {"in.sample": sample, "in.timesteps": time, "in.text": text}
    run_2d(unet, tensors, "plain", sample, time, text)
    save("spatial", unet, tensors, {
        "block_out_channels": [8, 16], "layers_per_block": 2, "norm_groups": 2,
        "down_attention": [True, False], "heads": 2, "cross_attention_dim": TEXT, "motion": None})


class FirstFrame:
    """Self-attention whose keys and values are the frame's own and those of frame 0."""

    def __init__(self, frames):
        self.frames = frames

    def __call__(self, attn, x, encoder_hidden_states=None, attention_mask=None):
        first = x.unflatten(0, (-1, self.frames))[:, :1].expand(-1, self.frames, -1, -1).flatten(0, 1)
        context = torch.cat([x, first], 1)
        return attend(attn, x, context)


def attend(attn, x, context):
    q, k, v = attn.to_q(x), attn.to_k(context), attn.to_v(context)
    q, k, v = (t.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return attn.to_out[0]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Regional:
    """Text attention blended by masks; `masks` is [regions, frames, height, width]."""

    def __init__(self, texts, masks):
        self.texts, self.masks = texts, masks

    def __call__(self, attn, x, encoder_hidden_states=None, attention_mask=None):
        masks = self.masks
        while masks.shape[-1] * masks.shape[-2] != x.shape[1]:
            masks = nn.functional.avg_pool2d(masks, 2)
        masks = masks / masks.sum(0).clamp(min=1)
        frames = masks.shape[1]
        background = 1 - masks.sum(0)
        weigh = lambda w, y: w.flatten(1).repeat(x.shape[0] // frames, 1)[:, :, None] * y
        out = weigh(background, attend(attn, x, encoder_hidden_states))
        for text, mask in zip(self.texts, masks):
            out = out + weigh(mask, attend(attn, x, text.repeat_interleave(frames, 0)))
        return out


def variants():
    """Linear projections, scale-shift, resnets and heads per level, frame-0 keys, regions."""
    unet = randomise(UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=(1, 2), norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=True,
        resnet_time_scale_shift="scale_shift", cross_attention_dim=TEXT,
        attention_head_dim=(2, 4)), 3)
    sample, time, text, phrase = clip(2, 2, 4, 6, 4, 4)
    other = torch.randn(text.shape, generator=torch.Generator().manual_seed(5))
    masks = torch.zeros(2, 2, 4, 6)
    masks[0, :, :2, :3] = 1.0
    masks[1, 1:, 1:, 2:5] = 0.75
    tensors = {"in.sample": sample, "in.timesteps": time, "in.text": text,
               "in.region_text": torch.stack([phrase, other[:, :4]]), "in.region_mask": masks}
    run_2d(unet, tensors, "plain", sample, time, text)
    plain = dict(unet.attn_processors)
    unet.set_attn_processor({k: FirstFrame(2) if ".attn1." in k else v for k, v in plain.items()})
    run_2d(unet, tensors, "first_frame", sample, time, text, trace=False)
    regional = Regional([phrase, other[:, :4]], masks)
    unet.set_attn_processor({k: regional if ".attn2." in k else v for k, v in plain.items()})
    run_2d(unet, tensors, "regions", sample, time, text, trace=False)
    save("variants", unet, tensors, {
        "block_out_channels": [8, 16], "layers_per_block": [1, 2], "norm_groups": 4,
        "down_attention": True, "heads": [2, 4], "cross_attention_dim": TEXT, "motion": None,
        "use_linear_projection": True, "resnet_time_scale_shift": "scale_shift"})


class OverFrames(nn.Module):
    """AnimateDiff v1: one 5-D GroupNorm over a whole clip."""

    def __init__(self, norm, frames):
        super().__init__()
        self.norm, self.frames = norm, frames

    def forward(self, x):
        clip = x.unflatten(0, (-1, self.frames)).transpose(1, 2)
        return self.norm(clip).transpose(1, 2).flatten(0, 1)


class PerFrame(nn.Module):
    """AnimateDiff's temporal norm: diffusers hands it [b, c, f, h, w], it norms each frame."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        b = x.shape[0]
        return self.norm(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, -1)).transpose(1, 2)


def motion_unet(seed, mid, channels, max_frames, layers=1):
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=layers, norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT, attention_head_dim=2)
    adapter = MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=layers, motion_norm_num_groups=2,
        motion_num_attention_heads=4, motion_max_seq_length=max_frames, use_motion_mid_block=mid,
        conv_in_channels=channels if channels != 4 else None)
    return randomise(UNetMotionModel.from_unet2d(unet, adapter), seed)


def motion_config(mid, max_frames, **extra):
    motion = {"mid": mid, "heads": 4, "max_frames": max_frames, "norm_groups": 2}
    motion |= extra.pop("motion", {})
    return {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_groups": 2,
            "down_attention": [True, False], "heads": 2, "cross_attention_dim": TEXT,
            "motion": motion, "temporal_norm_over_frames": True} | extra


def use_original_norms(unet, frames, resnets_over_frames):
    """The two rules of the AnimateDiff repository in place of diffusers' one."""
    for module in list(unet.modules()):
        if isinstance(module, AnimateDiffTransformer3D):
            module.norm = PerFrame(module.norm)
        if resnets_over_frames and hasattr(module, "norm1") and hasattr(module, "conv1"):
            module.norm1 = OverFrames(module.norm1, frames)
            module.norm2 = OverFrames(module.norm2, frames)
    if resnets_over_frames:
        unet.conv_norm_out = OverFrames(unet.conv_norm_out, frames)


def motion_v3():
    """No mid module, 32 frames; the three GroupNorm rules on the same weights."""
    unet = motion_unet(6, False, 4, 32)
    sample, time, text, _ = clip(2, 3, 4, 6, 4, 7)
    tensors = {"in.sample": sample, "in.timesteps": time, "in.text": text}
    run_motion(unet, tensors, "diffusers", sample, time, text)
    weights = unet.state_dict()
    for case, over_frames in [("per_frame", False), ("resnets_over_frames", True)]:
        original = motion_unet(6, False, 4, 32)
        original.load_state_dict(weights)
        use_original_norms(original, 3, over_frames)
        run_motion(original, tensors, case, sample, time, text, trace=False)
    save("motion_v3", unet, tensors, motion_config(False, 32))


def motion_v2():
    """A mid module, 24 frames, 9 input channels as PIA's."""
    unet = motion_unet(8, True, 9, 24)
    sample, time, text, _ = clip(1, 4, 4, 4, 9, 9)
    tensors = {"in.sample": sample, "in.timesteps": time, "in.text": text}
    run_motion(unet, tensors, "diffusers", sample, time, text)
    save("motion_v2", unet, tensors, motion_config(True, 24, in_channels=9))


class Embeddings(nn.Module):
    """Time, strength and fps, each a sinusoid and two linear layers, summed."""

    def __init__(self, unet, strength, fps):
        super().__init__()
        self.base, self.project = unet.time_embedding, unet.time_proj
        self.motion, self.fps = (TimestepEmbedding(8, 32) for _ in range(2))
        self.values = strength, fps

    def forward(self, time, condition=None):
        strength, fps = (self.project(v).repeat_interleave(time.shape[0] // len(v), 0) for v in self.values)
        return self.base(time) + self.motion(strength) + self.fps(fps)


class PhraseBlock(nn.Module):
    """Self, self, cross to the motion phrase, feed-forward; frame positions on the queries."""

    phrase, query_positions = None, True

    def __init__(self, channels, heads, self_attentions):
        super().__init__()
        attention = lambda context=None: Attention(
            channels, cross_attention_dim=context, heads=heads, dim_head=channels // heads)
        for index in range(1, self_attentions + 1):
            setattr(self, f"norm{index}", nn.LayerNorm(channels))
            setattr(self, f"attn{index}", attention())
        self.norm_ma, self.attn3 = nn.LayerNorm(channels), attention(TEXT)
        self.norm3, self.ff = nn.LayerNorm(channels), FeedForward(channels, mult=2, activation_fn="geglu")
        self.pos_embed = SinusoidalPositionalEmbedding(channels, 24)
        self.count = self_attentions

    def forward(self, hidden_states, **_):
        x = hidden_states
        for index in range(1, self.count + 1):
            x = x + getattr(self, f"attn{index}")(self.pos_embed(getattr(self, f"norm{index}")(x)))
        q = self.norm_ma(x)
        q = self.pos_embed(q) if PhraseBlock.query_positions else q
        phrase = PhraseBlock.phrase.repeat_interleave(x.shape[0] // len(PhraseBlock.phrase), 0)
        x = x + self.attn3(q, encoder_hidden_states=phrase)
        return x + self.ff(self.norm3(x))


def follow_your_click(name, seed, self_attentions):
    """Phrase attention, strength and fps embeddings, 9 channels, feed-forward of another width."""
    unet = motion_unet(seed, False, 9, 24)
    sample, time, text, phrase = clip(2, 3, 4, 4, 9, 11)
    strength, fps = torch.tensor([4.0, 16.0]), torch.tensor([2.0, 8.0])
    unet.time_embedding = Embeddings(unet, strength, fps)
    for module in list(unet.modules()):
        if isinstance(module, AnimateDiffTransformer3D):
            module.transformer_blocks[0] = PhraseBlock(module.in_channels, 4, self_attentions)
    randomise(unet, seed)
    tensors = {"in.sample": sample, "in.timesteps": time, "in.text": text, "in.phrase": phrase,
               "in.strength": strength, "in.fps": fps}
    PhraseBlock.phrase = phrase
    run_motion(unet, tensors, "positions", sample, time, text)
    PhraseBlock.query_positions = False
    run_motion(unet, tensors, "no_positions", sample, time, text, trace=False)
    PhraseBlock.query_positions = True
    rename = {"time_embedding.base.": "time_embedding.", "time_embedding.motion.": "motion_embedding.",
              "time_embedding.fps.": "fps_embedding."}
    state = unet.state_dict()
    for old, new in rename.items():
        state = {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in state.items()}
    holder = nn.Module()
    holder.state_dict = lambda: state
    motion = {"phrase_attention": {"ma_query_pe": True}, "ff_mult": 2, "self_attentions": self_attentions}
    save(name, holder, tensors, motion_config(
        False, 24, in_channels=9, strength_embedding=True, fps_embedding=True, motion=motion))


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    spatial()
    variants()
    motion_v3()
    motion_v2()
    follow_your_click("phrase_two", 10, 2)
    follow_your_click("phrase_one", 12, 1)
