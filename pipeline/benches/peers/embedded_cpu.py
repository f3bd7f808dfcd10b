"""PyTorch on the CPU doing what `kinora bench` does: the embedded model's networks, same weights.

    python pipeline/benches/peers/embedded_cpu.py [--threads 2] [--runs 5]

Prints one JSON object: milliseconds (median and minimum) for a UNet step over 16 frames of 256x256,
and for encoding and decoding those frames. Needs torch and safetensors; networks are those of
assets/models/kinora-mini/training.
"""
import argparse
import dataclasses
import glob
import json
import os
import statistics
import sys
import time

import torch
from safetensors.torch import load_file

MODEL = os.path.join(os.path.dirname(__file__), "../../../assets/models/kinora-mini")
sys.path.insert(0, os.path.join(MODEL, "training"))
from autoencoder import Autoencoder, AutoencoderConfig  # noqa: E402
from unet import UNet, UNetConfig  # noqa: E402


def weights(pattern):
    state = {}
    for path in sorted(glob.glob(os.path.join(MODEL, pattern))):
        state.update(load_file(path))
    return {name: tensor.float() for name, tensor in state.items()}


def configured(cls, values):
    known = {f.name for f in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in values.items() if name in known})


def timed(work, runs):
    work()
    samples = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        samples.append(1e3 * (time.perf_counter() - start))
    return {"median_ms": round(statistics.median(samples), 1), "min_ms": round(min(samples), 1)}


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    with open(os.path.join(MODEL, "config.json")) as file:
        config = json.load(file)
    unet = UNet(configured(UNetConfig, config["unet"])).eval()
    unet.load_state_dict(weights("unet*.safetensors"))
    autoencoder = Autoencoder(configured(AutoencoderConfig, config["autoencoder"])).eval()
    autoencoder.load_state_dict(weights("autoencoder*.safetensors"))

    torch.manual_seed(0)
    frames = 16
    channels = config["unet"]["in_channels"]
    latents = torch.randn(frames, channels, 32, 32)
    context = torch.randn(1, 32, config["unet"]["cross_attention_dim"])
    picture = torch.rand(frames, 3, 256, 256) * 2 - 1
    z = autoencoder.encode(picture)
    print(json.dumps({
        "peer": f"PyTorch {torch.__version__} CPU, f32, {args.threads} threads",
        "unet_step": timed(lambda: unet(latents, torch.tensor([500.0]), context, torch.tensor([600.0]), frames), args.runs),
        "encode": timed(lambda: autoencoder.encode(picture), args.runs),
        "decode": timed(lambda: autoencoder.decode(z), args.runs),
    }))


if __name__ == "__main__":
    main()
