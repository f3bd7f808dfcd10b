"""Writes UNet, motion and single-file lists to pipeline/tests/fixtures/layouts/*.txt: names with shapes of
the public checkpoints at full size (`full_size_keys.py` writes text encoder and autoencoder).

One line a tensor: name, space, shape (`320x4x3x3`, `scalar`). Made on the meta device: no weights are allocated.
Needs torch, diffusers 0.42 and transformers. Single-file and original AnimateDiff names are spelled
out here and accepted only if diffusers' own conversion functions turn them into the diffusers names.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.loaders.single_file_utils import (
    convert_animatediff_checkpoint_to_diffusers,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "layouts"
SD15 = dict(cross_attention_dim=768, attention_head_dim=8)
LEVELS = 4


def shapes(model):
    return {k: tuple(v.shape) for k, v in model.state_dict().items()}


def write(name, tensors):
    lines = [f"{k} {'x'.join(map(str, v)) or 'scalar'}\n" for k, v in sorted(tensors.items())]
    (OUT / f"{name}.txt").write_text("".join(lines))
    print(name, len(lines))


def ldm_unet_name(key):
    """The CompVis name of a diffusers UNet key, SD1.5's four levels of two layers."""
    fixed = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    head, leaf = key.rsplit(".", 1)
    if head in fixed:
        return f"{fixed[head]}.{leaf}"
    parts = key.split(".")
    if parts[0] == "mid_block":
        place = f"middle_block.{2 * int(parts[2]) if parts[1] == 'resnets' else 1}"
        rest = parts[3:]
    else:
        level, kind, index = int(parts[1]), parts[2], int(parts[3])
        rest = parts[4:]
        if parts[0] == "down_blocks":
            number = 3 * level + index + 1 if kind != "downsamplers" else 3 * level + 3
            place = f"input_blocks.{number}.{1 if kind == 'attentions' else 0}"
            rest = ["op", *rest[1:]] if kind == "downsamplers" else rest
        else:
            number = 3 * level + index if kind != "upsamplers" else 3 * level + 2
            # The first up level has no attention, so its upsampler takes that place.
            place = f"output_blocks.{number}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': 2 if level else 1}[kind]}"
    if parts[2 if parts[0] != "mid_block" else 1] == "resnets":
        names = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
                 "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
        rest = [names[rest[0]], *rest[1:]]
    return ".".join([place, *rest])


def ldm_vae_name(key):
    """The CompVis name of a diffusers VAE key."""
    for new, old in [("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
                     ("mid_block.attentions.0", "mid.attn_1"), ("conv_norm_out", "norm_out"),
                     ("conv_shortcut", "nin_shortcut"), ("group_norm", "norm"), (".to_q.", ".q."),
                     (".to_k.", ".k."), (".to_v.", ".v."), (".to_out.0.", ".proj_out."),
                     ("downsamplers.0", "downsample"), ("upsamplers.0", "upsample"), ("down_blocks", "down"),
                     (".resnets.", ".block.")]:
        key = key.replace(new, old)
    if "up_blocks." in key:
        start, rest = key.split("up_blocks.")
        key = f"{start}up.{LEVELS - 1 - int(rest[0])}{rest[1:]}"
    return key


def convolution(name, shape):
    """CompVis keeps the VAE's attention matrices as 1×1 convolutions."""
    attention = ".attn_1." in name and name.endswith(".weight") and len(shape) == 2
    return (*shape, 1, 1) if attention else shape


def check(converted, expected):
    assert {k: tuple(v.shape) for k, v in converted.items()} == expected, "not what diffusers converts"


def original_motion(shapes_of, max_frames):
    """The AnimateDiff repository's names, with the positional buffers its files carry."""
    out = {}
    for key, shape in shapes_of.items():
        if "pos_embed" in key:
            continue
        if "motion_modules" in key:
            place, rest = key.split("motion_modules.")
            index, rest = rest.split(".", 1)
            for new, old in [("attn1", "attention_blocks.0"), ("attn2", "attention_blocks.1"), ("norm1", "norms.0"),
                             ("norm2", "norms.1"), ("norm3", "ff_norm")]:
                rest = rest.replace(f".{new}.", f".{old}.")
            key = f"{place}motion_modules.{index}.temporal_transformer.{rest}"
            if key.endswith("to_q.weight"):
                out[key.replace("to_q.weight", "pos_encoder.pe")] = (1, max_frames, shape[0])
        out[key] = shape
    return out


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**SD15), AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
        text = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                            num_attention_heads=12, vocab_size=49408))
        adapters = {
            "v1": MotionAdapter(motion_max_seq_length=24, use_motion_mid_block=False),
            "v2": MotionAdapter(motion_max_seq_length=32, use_motion_mid_block=True),
            "v3": MotionAdapter(motion_max_seq_length=32, use_motion_mid_block=False)}
        pia = MotionAdapter(motion_max_seq_length=32, use_motion_mid_block=False, conv_in_channels=9)
        video = UNetMotionModel(use_motion_mid_block=True, cross_attention_dim=768, num_attention_heads=8)
    plain = shapes(unet)
    write("sd15_unet", plain)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for key, shape in shapes(vae).items():
        for new, name in old.items():
            key = key.replace(new, name)
        renamed[key] = shape
    write("sd15_vae_old_names", renamed)
    language = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in shapes(text).items()}
    write("unet_motion_v2", shapes(video))
    for name, adapter in adapters.items():
        write(f"motion_adapter_{name}", shapes(adapter))
        frames = 24 if name == "v1" else 32
        original = original_motion(shapes(adapter), frames)
        converted = convert_animatediff_checkpoint_to_diffusers({k: torch.empty(v, device="meta") for k, v in original.items()})
        check(converted, {k: v for k, v in shapes(adapter).items() if "pos_embed" not in k})
        write(f"animatediff_{name}", {f"module.{k}": v for k, v in original.items()})
    write("pia_adapter", shapes(pia))
    write("pia_original", {f"module.{k}": v for k, v in original_motion(shapes(pia), 32).items()})

    single = {ldm_unet_name(k): v for k, v in plain.items()}
    meta = {f"model.diffusion_model.{k}": torch.empty(v, device="meta") for k, v in single.items()}
    check(convert_ldm_unet_checkpoint(dict(meta), {"layers_per_block": 2}), plain)
    autoencoder = {ldm_vae_name(k): v for k, v in shapes(vae).items()}
    autoencoder = {k: convolution(k, v) for k, v in autoencoder.items()}
    meta = {f"first_stage_model.{k}": torch.empty(v, device="meta") for k, v in autoencoder.items()}
    check(convert_ldm_vae_checkpoint(dict(meta), {"down_block_types": [0] * 4, "up_block_types": [0] * 4}), shapes(vae))
    everything = {f"model.diffusion_model.{k}": v for k, v in single.items()}
    everything |= {f"first_stage_model.{k}": v for k, v in autoencoder.items()}
    everything |= {f"cond_stage_model.transformer.{k}": v for k, v in language.items()}
    everything["cond_stage_model.transformer.text_model.embeddings.position_ids"] = (1, 77)
    for name in ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
                 "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
                 "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
                 "posterior_mean_coef1", "posterior_mean_coef2"):
        everything[name] = (1000,)
    everything["model_ema.decay"] = everything["model_ema.num_updates"] = ()
    write("sd15_single_file", everything)

    union = dict(plain) | original_motion(shapes(adapters["v1"]), 24)
    union["conv_in.weight"] = (320, 9, 3, 3)
    for name in ("motion_embedding", "fps_embedding"):
        union |= {f"{name}.linear_1.weight": (1280, 320), f"{name}.linear_2.weight": (1280, 1280),
                  f"{name}.linear_1.bias": (1280,), f"{name}.linear_2.bias": (1280,)}
    write("follow_your_click", union)
    phrase = dict(union)
    for key, shape in union.items():
        if key.endswith("attention_blocks.0.to_out.0.weight"):
            c, place = shape[0], key.split("attention_blocks.")[0]
            layer = f"{place}attention_blocks.2"
            phrase |= {f"{layer}.to_q.weight": (c, c), f"{layer}.to_k.weight": (c, 768),
                       f"{layer}.to_v.weight": (c, 768), f"{layer}.to_out.0.weight": (c, c),
                       f"{layer}.to_out.0.bias": (c,), f"{layer}.pos_encoder.pe": (1, 24, c),
                       f"{place}norms.2.weight": (c,), f"{place}norms.2.bias": (c,)}
    write("follow_your_click_phrase", phrase)


if __name__ == "__main__":
    main()
