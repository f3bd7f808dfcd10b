"""Writes pipeline/tests/fixtures/layouts/tiny.ckpt: a checkpoint as training scripts save them."""

from pathlib import Path

import torch

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "layouts" / "tiny.ckpt"

if __name__ == "__main__":
    whole = torch.arange(12, dtype=torch.float32)
    torch.save({
        "epoch": 3,
        "global_step": 70000,
        "state_dict": {
            "module.matrix": torch.nn.Parameter(torch.arange(6, dtype=torch.float32).reshape(2, 3)),
            "module.half": torch.tensor([0.5, -2.0], dtype=torch.float16),
            "module.view": whole[4:8].reshape(2, 2),
            "module.steps": torch.tensor([7, -1]),
        },
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "lr": 1e-4},
    }, OUT)
    print(OUT.name, OUT.stat().st_size)
