"""What the training scripts share: clock, log, saving, and the Muon optimiser."""
import math
import os
import time

import torch
from safetensors.torch import save_file

OUT = os.environ.get("OUT", "out")
WORK = os.environ.get("WORK", "/tmp/kinora")      # intermediate weights, kept on the machine
START = time.time()
os.makedirs(OUT, exist_ok=True)
os.makedirs(WORK, exist_ok=True)


def say(name, *a):
    print(f"[{name} {time.time() - START:6.1f}s]", *a, flush=True)


def half_state(net):
    return {k: v.detach().half().contiguous().cpu() for k, v in net.state_dict().items()}


def save_both(state, file):
    """Complete file or none: other processes poll for it."""
    for d in (WORK, OUT):
        save_file(state, f"{d}/{file}.part")
        os.replace(f"{d}/{file}.part", f"{d}/{file}")


def wait_for(file, limit):
    t = time.time()
    while not os.path.exists(f"{WORK}/{file}"):
        if time.time() - t > limit:
            raise SystemExit(f"{file} never came")
        time.sleep(0.2)


def cosine(step_fraction, warm=0.02, floor=0.03):
    if step_fraction < warm:
        return step_fraction / warm
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1, (step_fraction - warm) / (1 - warm))))


class Muon:
    """Momentum orthogonalised by five Newton-Schulz steps; equal shapes are stacked and done in one go."""

    def __init__(self, params, momentum=0.95):
        self.params, self.momentum, self.groups = list(params), momentum, {}
        self.buf = [torch.zeros_like(p) for p in self.params]
        for i, p in enumerate(self.params):
            self.groups.setdefault((p.shape[0], p[0].numel()), []).append(i)

    @torch.no_grad()
    def step(self, lr):
        g = [p.grad for p in self.params]
        torch._foreach_mul_(self.buf, self.momentum)
        torch._foreach_add_(self.buf, g)
        for (rows, cols), idx in self.groups.items():
            u = torch.stack([(g[i] + self.momentum * self.buf[i]).reshape(rows, cols) for i in idx]).bfloat16()
            flip = rows > cols
            u = u.transpose(1, 2) if flip else u
            u = u / (u.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                a = u @ u.transpose(1, 2)
                u = 3.4445 * u + (-4.7750 * a + 2.0315 * a @ a) @ u
            u = (u.transpose(1, 2) if flip else u).float() * (-lr * 0.2 * max(rows, cols) ** 0.5)
            torch._foreach_add_([self.params[i] for i in idx], [u[j].reshape(self.params[i].shape) for j, i in enumerate(idx)])
