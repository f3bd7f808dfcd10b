"""Writes pipeline/tests/fixtures/unet/motion_v3_gradients.safetensors: what one-shot tuning differentiates.

The network, weights and inputs are those of motion_v3.safetensors (unet.py). Holds `target`, the `loss`
(mean squared difference from it), and `grad.*` for every attention projection of the spatial and temporal
transformers, for the sample and for the text; pictures are channels-last. Needs torch, diffusers 0.42 and
safetensors. Run from anywhere:  python unet_gradients.py
"""

import torch
from safetensors.torch import load_file, save_file
from unet import OUT, motion_unet

fixture = load_file(OUT / "motion_v3.safetensors")
unet = motion_unet(6, False, 4, 32)
weights = {name.removeprefix("weights."): x.float() for name, x in fixture.items() if name.startswith("weights.")}
missing, unexpected = unet.load_state_dict(weights, strict=False)
assert not unexpected and all("pos_embed" in name for name in missing), (missing, unexpected)

# [batch, frames, height, width, channels] to diffusers' [batch, channels, frames, height, width].
sample = fixture["in.sample"].float().requires_grad_()
text = fixture["in.text"].float().requires_grad_()
frames = sample.shape[1]
out = unet(sample.permute(0, 4, 1, 2, 3), fixture["in.timesteps"], text.repeat_interleave(frames, 0)).sample
out = out.permute(0, 2, 3, 4, 1)
recorded = fixture["out.diffusers"].float()
assert torch.allclose(out, recorded, atol=1e-5, rtol=1e-4), (out - recorded).abs().max()

target = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
loss = (out - target).square().mean()
loss.backward()
tensors = {"target": target, "loss": loss.detach(), "grad.in.sample": sample.grad, "grad.in.text": text.grad}
for name, parameter in unet.named_parameters():
    if any(part in name for part in [".to_q.", ".to_k.", ".to_v.", ".to_out."]):
        tensors[f"grad.{name}"] = parameter.grad
save_file({name: x.contiguous() for name, x in tensors.items()}, OUT / "motion_v3_gradients.safetensors")
print(len(tensors), loss.item())
