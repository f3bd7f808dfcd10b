"""Writes ../config.json from the dataclasses (sizes, file names, product constants).
usage: write_config.py [scaling_factor]"""
import json
import sys
from dataclasses import asdict
from pathlib import Path

import motions as M
from autoencoder import AutoencoderConfig
from field import FieldConfig
from plate import PlateConfig
from text import TextConfig
from unet import UNetConfig

HERE = Path(__file__).parent.parent
scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
shards = sorted(p.name for p in HERE.glob("unet-*.safetensors")) or [f"unet-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
config = {
    "model": "kinora-mini", "version": 1, "frames": 16, "area": 256 * 256, "multiple_of": 8,
    "default_steps": 1, "default_magnitude": 0.6, "timestep_scale": 1000.0, "strength_scale": 1000.0,
    "files": {"unet": shards, "autoencoder": ["autoencoder.safetensors"], "text": ["text.safetensors"],
              "field": ["field.safetensors"], "plate": ["plate.safetensors"], "tokenizer": "bpe_simple_vocab_16e6.txt.gz",
              "prompts": "prompts.json"},
    "kinds": M.KINDS, "gated": sorted(M.GATED), "unrecognised_column": M.UNRECOGNISED, "kind_threshold": 0.5,
    "unet": asdict(UNetConfig()), "autoencoder": asdict(AutoencoderConfig(scaling_factor=scale)),
    "text": asdict(TextConfig()), "field": asdict(FieldConfig()), "plate": asdict(PlateConfig()),
}
(HERE / "config.json").write_text(json.dumps(config, indent=1) + "\n")
