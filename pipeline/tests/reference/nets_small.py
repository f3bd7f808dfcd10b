"""Makes tests/fixtures/nets/{clip_text,autoencoder_kl,autoencoder_tiny,clip_tokenizer}.

Random tiny models of the public reference classes (transformers, diffusers), their weights, one
input each and the outputs with named intermediates. Pictures are stored channels-last.

    pip install torch transformers==5.23.0 diffusers==0.42.1 safetensors
    python nets_small.py
"""

import json
import pathlib

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "nets"


def last(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def store(name: str, weights: dict, io: dict, config: dict) -> None:
    tensors = {f"weights.{k}": v.detach().clone().contiguous() for k, v in weights.items()}
    tensors |= {f"io.{k}": v.detach().clone().contiguous() for k, v in io.items()}
    path = ROOT / f"{name}.safetensors"
    save_file(tensors, path, metadata={"config": json.dumps(config)})
    path.chmod(0o644)
    print(path.name, path.stat().st_size)


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    # Norms and biases too: at their initial ones and zeros a swapped pair would go unseen.
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = parameter.data * 1.5 + 0.1 * noise
    return model.eval()


def clip_text(activation: str) -> None:
    config = {
        "hidden_size": 8,
        "intermediate_size": 37,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "vocab_size": 1000,
        "max_position_embeddings": 77,
        "hidden_act": activation,
        "eos_token_id": 2 if activation == "quick_gelu" else 7,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }
    torch.manual_seed(0)
    model = randomise(CLIPTextModel(CLIPTextConfig(**config)), 1)
    ids = torch.randint(10, 900, (3, 77), generator=torch.Generator().manual_seed(2))
    # End marks: the highest id, repeated as padding, for the historical rule; 7 for the other.
    mark = 999 if activation == "quick_gelu" else 7
    for row, end in enumerate([5, 30, 76]):
        ids[row, end:] = mark
    with torch.no_grad():
        out = model(ids)
    weights = model.state_dict()
    if activation == "quick_gelu":
        # The spelling of every published checkpoint; transformers 5 dropped the prefix.
        weights = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in weights.items()}
    weights = {k: v for k, v in weights.items() if not k.endswith("position_ids")}
    io = {"ids": ids.to(torch.int64), "hidden": out.last_hidden_state, "pooled": out.pooler_output}
    store(f"clip_text_{activation}", weights, io, config)


def autoencoder_kl() -> None:
    config = {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 2,
        "scaling_factor": 0.18215,
    }
    torch.manual_seed(0)
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    model = randomise(AutoencoderKL(**config, **kinds), 3)
    generator = torch.Generator().manual_seed(4)
    pictures = torch.rand(2, 3, 16, 12, generator=generator) * 2 - 1
    noise = torch.randn(2, 4, 8, 6, generator=generator)
    io = {"pictures": last(pictures), "noise": last(noise)}

    def watch(name: str, module: torch.nn.Module):
        module.register_forward_hook(lambda _m, _i, out: io.__setitem__(name, last(out)))

    watch("encoder.conv_in", model.encoder.conv_in)
    for i, block in enumerate(model.encoder.down_blocks):
        watch(f"encoder.down_blocks.{i}", block)
    watch("encoder.mid_block", model.encoder.mid_block)
    watch("decoder.mid_block", model.decoder.mid_block)
    for i, block in enumerate(model.decoder.up_blocks):
        watch(f"decoder.up_blocks.{i}", block)
    with torch.no_grad():
        posterior = model.encode(pictures).latent_dist
        latents = (posterior.mean + posterior.std * noise) * config["scaling_factor"]
        decoded = model.decode(latents / config["scaling_factor"]).sample
    io |= {"mean": last(posterior.mean), "logvar": last(posterior.logvar), "latents": last(latents), "decoded": last(decoded)}
    store("autoencoder_kl", model.state_dict(), io, config)


def autoencoder_tiny() -> None:
    config = {
        "in_channels": 3,
        "out_channels": 3,
        "encoder_block_out_channels": [8, 8, 8],
        "decoder_block_out_channels": [8, 8, 8],
        "num_encoder_blocks": [1, 2, 1],
        "num_decoder_blocks": [2, 1, 1],
        "latent_channels": 4,
    }
    torch.manual_seed(0)
    model = randomise(AutoencoderTiny(**config), 5)
    pictures = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(6)) * 2 - 1
    with torch.no_grad():
        latents = model.encode(pictures).latents
        decoded = model.decode(latents).sample
    io = {"pictures": last(pictures), "latents": last(latents), "decoded": last(decoded)}
    store("autoencoder_tiny", model.state_dict(), io, config)


if __name__ == "__main__":
    ROOT.mkdir(parents=True, exist_ok=True)
    clip_text("quick_gelu")
    clip_text("gelu")
    autoencoder_kl()
    autoencoder_tiny()
