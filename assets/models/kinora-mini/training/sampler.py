"""Few-step sampler of the residual, x-prediction: x = (1 - tau) y + tau n, the net predicts y."""
import torch


def clip_noise(shape, frames, generator=None, device=None):
    """[B*F, C, h, w]: (independent + shared over the frames of a clip) / sqrt 2."""
    n, c, h, w = shape
    own = torch.randn(n, c, h, w, generator=generator, device=device)
    shared = torch.randn(n // frames, 1, c, h, w, generator=generator, device=device)
    return ((own.view(-1, frames, c, h, w) + shared) * 0.5 ** 0.5).view(n, c, h, w)


def unet_input(x, guide_latents, maps):
    """noisy residual, scaled guide latents, [mask, validity] -> the UNet's input channels."""
    return torch.cat([x, guide_latents, maps], 1)


@torch.no_grad()
def sample_residual(unet, noise, guide_latents, maps, context, magnitude, frames, steps=4):
    """All tensors [B*F, ...]; context [B, T, D]; magnitude [B] 0..1 -> residual [B*F, C, h, w].
    tau falls linearly from 1; the last step returns the prediction itself."""
    x = noise
    b = noise.shape[0] // frames
    for i in range(steps):
        tau, nxt = 1 - i / steps, 1 - (i + 1) / steps
        t = torch.full((b,), tau * 1000.0, device=noise.device)
        y = unet(unet_input(x, guide_latents, maps), t, context, magnitude * 1000.0, frames)
        n = (x - (1 - tau) * y) / tau
        x = (1 - nxt) * y + nxt * n
    return x
