"""Picture autoencoder in the layout of diffusers' AutoencoderTiny, plus a pixel-unshuffle stem.

Pictures are RGB in -1..1, [N, 3, H, W] with H and W multiples of 8; latents [N, 16, H/8, W/8].
There is no normalisation layer, so the size of the picture changes nothing locally.
"""
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class AutoencoderConfig:
    patch: int = 2
    latent_channels: int = 16
    encoder_block_out_channels: list = field(default_factory=lambda: [48, 96, 128])
    num_encoder_blocks: list = field(default_factory=lambda: [1, 2, 2])
    decoder_block_out_channels: list = field(default_factory=lambda: [128, 96, 64])
    num_decoder_blocks: list = field(default_factory=lambda: [2, 3, 2])
    latent_magnitude: float = 3.0    # decoder clamps softly: m * tanh(z / m)
    scaling_factor: float = 1.0      # the UNet works on latent * scaling_factor


class Block(nn.Module):
    """relu(conv(relu(conv(relu(conv(x))))) + skip(x)); keys conv.0, conv.2, conv.4, skip."""

    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(cout, cout, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(cout, cout, 3, padding=1))
        self.skip = nn.Conv2d(cin, cout, 1, bias=False) if cin != cout else nn.Identity()

    def forward(self, x):
        return F.relu(self.conv(x) + self.skip(x))


class Encoder(nn.Module):
    def __init__(self, c: AutoencoderConfig):
        super().__init__()
        layers, w0 = [], 3 * c.patch ** 2
        for i, (w, n) in enumerate(zip(c.encoder_block_out_channels, c.num_encoder_blocks)):
            layers.append(nn.Conv2d(w0, w, 3, padding=1) if i == 0 else
                          nn.Conv2d(w0, w, 3, stride=2, padding=1, bias=False))
            layers += [Block(w, w) for _ in range(n)]
            w0 = w
        layers.append(nn.Conv2d(w0, c.latent_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.patch = c.patch

    def forward(self, x):
        return self.layers(F.pixel_unshuffle((x + 1) / 2, self.patch))


class Decoder(nn.Module):
    def __init__(self, c: AutoencoderConfig):
        super().__init__()
        ws = c.decoder_block_out_channels
        layers = [nn.Conv2d(c.latent_channels, ws[0], 3, padding=1), nn.ReLU()]
        for i, (w, n) in enumerate(zip(ws, c.num_decoder_blocks)):
            layers += [Block(w, w) for _ in range(n)]
            if i < len(ws) - 1:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(w, ws[i + 1], 3, padding=1, bias=False)]
            else:
                layers.append(nn.Conv2d(w, 3 * c.patch ** 2, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.patch, self.magnitude = c.patch, c.latent_magnitude

    def forward(self, z):
        y = self.layers(torch.tanh(z / self.magnitude) * self.magnitude)
        return F.pixel_shuffle(y, self.patch) * 2 - 1


class Autoencoder(nn.Module):
    def __init__(self, cfg: AutoencoderConfig):
        super().__init__()
        self.cfg = cfg
        self.encoder, self.decoder = Encoder(cfg), Decoder(cfg)
        for m in self.modules():  # no norms: He init keeps activations alive
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                m.weight.data *= 0.7
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
        for m in self.modules():
            if isinstance(m, Block):
                m.conv[4].weight.data *= 0.3

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)
