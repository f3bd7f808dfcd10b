"""The rows of `examples/cuda_denoiser.rs` in diffusers and PyTorch on the same card: random f16 weights.

    python3 cuda_networks.py [--compile] [--json FILE] [--case FOLDER]

`--case` leaves weights, inputs and f32 results of both networks in FOLDER, for `cuda_denoiser --case FOLDER`, and
prints how far f16 is from them here.

Needs torch and diffusers 0.42 (and transformers for the text encoder; left out where it is missing).
"""
import argparse
import copy
import json
import pathlib
import statistics

import torch
from diffusers import AutoencoderKL, UNetMotionModel


def milliseconds(run, runs=9):
    """Median over warm runs, each closed by a wait, as the Rust side measures."""
    for _ in range(3):
        run()
    times = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def case(folder, name, network, run, inputs):
    """Saves what the Rust side repeats; `run` maps a network and its inputs to a result."""
    from safetensors.torch import save_file

    with torch.inference_mode():
        wide = copy.deepcopy(network).float()
        want = run(wide, **{key: x.float() for key, x in inputs.items()})
        got = run(network, **inputs).float()
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {key: x.contiguous() for key, x in network.state_dict().items()}
    save_file(contiguous, folder / f"{name}.safetensors")
    save_file({**{key: x.contiguous() for key, x in inputs.items()}, "want": want.contiguous()},
              folder / f"{name}_case.safetensors")
    error = (got - want).square().mean()
    print(f"{name}: f16 here against f32, {10 * torch.log10(4 / error):.1f} dB of a range of 2, "
          f"relative {(error / want.square().mean()).sqrt():.2e}, root mean square {want.square().mean().sqrt():.3f}",
          flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--case")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    rows = []

    def row(name, run, runs=9):
        torch.cuda.reset_peak_memory_stats()
        ms = milliseconds(run, runs)
        peak = torch.cuda.max_memory_allocated() / 1e9
        rows.append({"name": name, "ms": ms, "peak_gb": peak})
        print(f"{name:34} {ms:9.3f} ms   peak {peak:6.3f} GB", flush=True)

    def random(*shape):
        return torch.randn(*shape, device="cuda", dtype=torch.half)

    with torch.inference_mode(), torch.device("cuda"):
        try:
            from transformers import CLIPTextConfig, CLIPTextModel

            text_model = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072,
                                                      num_attention_heads=12)).half().eval()
            ids = torch.randint(0, 49000, (2, 77))
            row("text encoder, 2 prompts", lambda: text_model(ids))
        except ImportError as error:
            print("no text encoder:", error)
        unet = UNetMotionModel(sample_size=64, cross_attention_dim=768, num_attention_heads=8,
                               motion_num_attention_heads=8, motion_max_seq_length=32,
                               use_motion_mid_block=True).half().eval()
        noise, text, step = random(1, 4, 16, 64, 64), random(32, 77, 768), torch.tensor(801)

        def guided(network):
            plain, asked = network(torch.cat([noise, noise]), step, encoder_hidden_states=text,
                                   return_dict=False)[0].chunk(2)
            return plain + 7.5 * (asked - plain)

        row("denoise step 16x512x512", lambda: guided(unet))
        if args.compile:
            compiled = torch.compile(unet)
            row("denoise step 16x512x512, compiled", lambda: guided(compiled))
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512),
                            down_block_types=("DownEncoderBlock2D",) * 4,
                            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2,
                            latent_channels=4).half().eval()
        latents, pictures = random(16, 4, 64, 64), random(16, 3, 512, 512)
        if args.case:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            # Outputs of a picture's size.
            size = vae.decode(latents[:1], return_dict=False)[0].float().square().mean().sqrt()
            vae.decoder.conv_out.weight *= 0.5 / size
            case(args.case, "vae", vae, lambda net, latents: net.decode(latents, return_dict=False)[0],
                 {"latents": latents[:4]})
            case(args.case, "unet", unet, lambda net, sample, text: net(sample, step, encoder_hidden_states=text,
                                                                        return_dict=False)[0],
                 {"sample": random(2, 4, 16, 64, 64), "text": random(2, 77, 768).repeat_interleave(16, 0)})
        row("decode 16 frames at once", lambda: vae.decode(latents, return_dict=False)[0], 3)
        row("encode 16 frames at once", lambda: vae.encode(pictures, return_dict=False)[0], 3)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
