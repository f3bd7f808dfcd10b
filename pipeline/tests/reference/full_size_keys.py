"""Makes tests/fixtures/layouts/*.txt: every key of a full-size public checkpoint with its shape.

The reference classes are built on the meta device from the published configurations, so nothing is
downloaded and no memory is used.

    pip install torch transformers==5.23.0 diffusers==0.42.1
    python full_size_keys.py
"""

import pathlib

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "layouts"


def store(name: str, model: torch.nn.Module, prefix: str = "") -> None:
    lines = [f"{prefix}{key} {'x'.join(map(str, value.shape))}" for key, value in sorted(model.state_dict().items())]
    (ROOT / f"{name}.txt").write_text("\n".join(lines) + "\n")
    print(name, len(lines), "keys")


def main() -> None:
    ROOT.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        text = CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=32,
        )
        # Published files carry the prefix; transformers 5 dropped it from the class.
        store("sd15_text_encoder", CLIPTextModel(text), "text_model.")
        store("sd15_vae", vae)
        store("taesd", AutoencoderTiny())


if __name__ == "__main__":
    main()
