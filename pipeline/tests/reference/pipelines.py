"""Whole 4-step pipelines of diffusers on tiny random networks, for pipeline/tests/pipeline_parity.rs.

AnimateDiffPipeline (4 channels) and PIAPipeline (9 channels) with given initial latents and token ids; stored are all
weights, inputs, the latents after every step and the decoded frames. Run:

    python pipeline/tests/reference/pipelines.py pipeline/tests/fixtures/pipeline
"""

import sys
from pathlib import Path

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    PIAPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

FRAMES, WIDTH, HEIGHT, STEPS, GUIDANCE = 3, 24, 16, 4, 7.5
TOKENS, VOCABULARY, HIDDEN = 7, 40, 8

# The draw from the autoencoder's posterior is not reproducible outside torch; the mean is.
DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mean


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


def networks(channels):
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=TOKENS, hidden_act="quick_gelu", eos_token_id=2,
        )
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=2, latent_channels=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8), layers_per_block=1, cross_attention_dim=HIDDEN, norm_num_groups=2,
        attention_head_dim=2, sample_size=8, in_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    adapter = MotionAdapter(
        block_out_channels=(8, 8), motion_layers_per_block=1, motion_norm_num_groups=2,
        motion_num_attention_heads=2, use_motion_mid_block=False,
        **({"conv_in_channels": channels} if channels != 4 else {}),
    )
    unet = UNetMotionModel.from_unet2d(unet, adapter)
    return randomise(text, 1), randomise(vae, 2), randomise(unet, 3)


def run(cls, channels, folder, name, **extra):
    text, vae, unet = networks(channels)
    scheduler = DDIMScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=False
    )
    options = {"image_encoder": None, "feature_extractor": None, "motion_adapter": None}
    pipe = cls(vae=vae, text_encoder=text, tokenizer=None, unet=unet, scheduler=scheduler, **options)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(1, 4, FRAMES, HEIGHT // 2, WIDTH // 2, generator=generator)
    ids = torch.tensor([[38, 5, 9, 20, 39, 39, 39], [38, 7, 39, 39, 39, 39, 39]])
    with torch.no_grad():
        prompt, negative = text(ids).last_hidden_state.chunk(2)
    steps = []

    def each(pipe, step, time, values):
        steps.append(values["latents"][0].permute(1, 2, 3, 0).clone())
        return {}

    frames = pipe(
        prompt_embeds=prompt, negative_prompt_embeds=negative, latents=latents, num_frames=FRAMES,
        height=HEIGHT, width=WIDTH, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="pt",
        callback_on_step_end=each, **extra,
    ).frames
    tensors = {
        "in.ids": ids.to(torch.int64),
        "in.latents": latents[0].permute(1, 2, 3, 0),
        "out.text": torch.cat([prompt, negative]),
        "out.steps": torch.stack(steps),
        # Pictures of 0..1 are clamped; the test clamps as well.
        "out.frames": frames[0].permute(0, 2, 3, 1),
    }
    if "image" in extra:
        tensors["in.image"] = extra["image"].permute(0, 2, 3, 1)
    for prefix, model in (("text", text), ("vae", vae), ("unet", unet)):
        tensors |= {f"{prefix}.{k}": v.half() for k, v in model.state_dict().items() if "pos_embed.pe" not in k}
    tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    path = folder / f"{name}.safetensors"
    save_file(tensors, path)
    print(path.name, path.stat().st_size // 1000, "kB", len(steps), "steps", frames.min().item(), frames.max().item())


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    run(AnimateDiffPipeline, 4, folder, "animatediff")
    generator = torch.Generator().manual_seed(5)
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator)
    run(PIAPipeline, 9, folder, "pia", image=image, motion_scale=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
