# SPDX-License-Identifier: Apache-2.0
"""Do all exported files of all kinds of networks compute what was quantized?

    python benchmarks/export_acceptance.py [--data CIFAR10_NPZ] [--candidates 30] [--images 1000]

Random candidates of the BOMP space (4 to 8 bits), ResNet-20 and MobileNetV2 at a random mixture
of 2 to 8 bits, weights and activations, on 32x32 images: lowered, exported and run in everything
that is installed, on the same images, against the integer reference. The networks are not
trained: what is compared are integers, not accuracies. So that not every image falls into one
class, the last layer's bias takes away the mean of every class. Images are CIFAR-10's test images
where its file is given, and smoothed noise elsewhere. One row a network and target.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from export_lower import mobilenet_v2
from provenance import provenance
from torch import nn
from torch.nn import functional as F

from bitscout.core import LayerBits, QuantPolicy
from bitscout.export.certification import certify
from bitscout.networks import build_network, resnet
from bitscout.quantization import layer_names, post_training_quantize
from bitscout.space import BompSpace

RESULTS = Path(__file__).parent / "results" / "export_acceptance.csv"
TARGETS = ("onnxruntime", "qonnx", "c", "cortex-m")


class Images:
    def __init__(self, path: Path | None, n: int) -> None:
        if path is None:
            noise = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))
            images = F.interpolate(noise, size=(32, 32), mode="bilinear").numpy()
        else:
            images = np.load(path)["x_test"][:n].transpose(0, 3, 1, 2).astype(np.float32) / 255
            images = (images - images.mean(axis=(0, 2, 3), keepdims=True)) / images.std()
        self.array = np.ascontiguousarray(images, dtype=np.float32)
        self.labels = np.zeros(len(images), dtype=np.int64)

    def images(self, start: int, stop: int) -> np.ndarray:
        return self.array[start:stop]


def small_mobilenet_v2() -> nn.Module:
    """Return MobileNetV2 for 32x32 images: the strides of the stem and the first stage are 1."""
    network = mobilenet_v2()
    network[0].stride = (1, 1)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 96:
            module.stride = (1, 1)
    network[-1] = nn.Linear(1280, 10)
    return network


def seeded(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
    return network


def networks(n_candidates: int) -> Iterator[tuple[str, nn.Module, QuantPolicy]]:
    rng = np.random.default_rng(0)
    others = {
        "ResNet-20": resnet(
            depth=20, n_classes=10, in_channels=3, base_width=16, generator_seed=0
        ),
        "MobileNetV2": seeded(small_mobilenet_v2()),
    }
    for name, network in others.items():
        bits = {
            layer: LayerBits(int(rng.integers(2, 9)), int(rng.integers(2, 9)))
            for layer in layer_names(network)
        }
        yield name, network, QuantPolicy(bits)
    space = BompSpace()
    for index in range(n_candidates):
        values = space.sample(rng)
        network = build_network(space.architecture(values), generator_seed=index)
        yield f"BOMP candidate {index}", network, space.policy(values)


def settle(network: nn.Module, images: torch.Tensor) -> None:
    """Give batch norms statistics, and every class the same mean output."""
    network.train()
    with torch.no_grad():
        network(images)
        network.eval()
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        last.bias -= network(images).mean(dim=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--only", default="", help="networks whose name begins so")
    parser.add_argument("--first", type=int, default=0, help="the first candidate to take")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = Images(args.data, args.images)
    calibration = torch.from_numpy(source.array[:128])
    columns = provenance(("numpy", "torch", "onnx", "onnxruntime", "qonnx"))
    with args.out.open("w", newline="") as file:
        writer = None
        for name, network, policy in networks(args.candidates):
            number = int(name.rpartition(" ")[2]) if name.startswith("BOMP") else args.first
            if not name.startswith(args.only) or number < args.first:
                continue
            settle(network, calibration)
            module = post_training_quantize(network, policy, calibration).eval()
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                certificate = certify(
                    module,
                    source,
                    Path(folder),
                    candidate=name,
                    predicted_bits=bits_of(module, policy),
                    network_accuracy=None,
                    n_images=args.images,
                    targets=TARGETS,
                )
            elapsed = time.perf_counter() - start
            with torch.no_grad():
                n_classes = len(module(torch.from_numpy(source.array[:200])).argmax(1).unique())
            for target in certificate.targets:
                row = {
                    "network": name,
                    "size_kb": certificate.predicted_bytes / 1000,
                    "packed_bytes": certificate.packed_bytes,
                    "classes_seen": n_classes,
                    "target": target.name,
                    "setting": target.setting,
                    "state": target.state,
                    "outputs": target.outputs,
                    "mismatches": target.mismatches,
                    "max_lsb": target.max_lsb,
                    "argmax_agreement": target.argmax_agreement,
                    "grid": target.grid,
                    "instructions_per_mac": target.details.get("instructions_per_mac", ""),
                    "reason": target.reason,
                    "seconds": round(elapsed, 1),
                    **columns,
                    "command": "python benchmarks/export_acceptance.py",
                }
                if writer is None:
                    writer = csv.DictWriter(file, row)
                    writer.writeheader()
                writer.writerow(row)
            file.flush()
            states = [target.state for target in certificate.targets]
            print(f"{name}: {certificate.passed}, {states}, {n_classes} classes, {elapsed:.0f} s")


def bits_of(module: nn.Module, policy: QuantPolicy) -> int:
    layers = {name: module.get_submodule(name) for name in policy}
    weights = sum(layer.weight.numel() * policy[n].weight_bits for n, layer in layers.items())
    return weights + sum(32 * layer.bias.numel() for layer in layers.values())


if __name__ == "__main__":
    main()
