# SPDX-License-Identifier: Apache-2.0
"""How long do lowering and exporting a network take, next to one forward pass of it?

    python benchmarks/export_lower.py

The network is MobileNetV2 at width 1.0 for 224x224 images (Table 2 of Sandler et al., 2018;
3.5 million weights) at 8 bits. Lowering runs it once on two images to record what it does, and
turns weights into codes. Next to it, in the same run, the forward passes of the real and of the
fake-quantized network on two images, and every export once. Processor time on one thread, which
other programs on the machine do not inflate; the median of the repetitions is written, with the
largest memory.
"""

from __future__ import annotations

import argparse
import csv
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from provenance import provenance
from torch import nn

from bitscout.core import LayerBits, QuantPolicy
from bitscout.export import export_graph
from bitscout.export.lowering import lower
from bitscout.quantization import Add, layer_names, post_training_quantize

# Expansion, channels, repetitions, stride: Table 2.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

EXPORTS = {
    "packed": {"format": "packed"},
    "onnx_int8": {"format": "onnx"},
    "onnx_packed": {"format": "onnx", "storage": "packed"},
    "onnx_int4": {"format": "onnx", "storage": "int4"},
    "qonnx": {"format": "qonnx"},
    "c": {"format": "c"},
}


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        first = [*conv(inputs, hidden), nn.ReLU6()] if expansion > 1 else []
        depthwise = [*conv(hidden, hidden, 3, stride, hidden), nn.ReLU6()]
        self.path = nn.Sequential(*first, *depthwise, *conv(hidden, outputs))
        self.add = Add() if stride == 1 and inputs == outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.path(x) if self.add is None else self.add(self.path(x), x)


def mobilenet_v2() -> nn.Module:
    layers: list[nn.Module] = [*conv(3, 32, 3, 2), nn.ReLU6()]
    channels = 32
    for expansion, outputs, count, stride in STAGES:
        for index in range(count):
            layers.append(Block(channels, outputs, stride if index == 0 else 1, expansion))
            channels = outputs
    layers += [*conv(channels, 1280), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, 1000)).eval()


def seconds(run: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = mobilenet_v2()
    images = torch.randn(2, 3, 224, 224)
    policy = QuantPolicy({name: LayerBits(8, 8) for name in layer_names(net)})
    module = post_training_quantize(net, policy, images).eval()
    graph = lower(module, images)  # Warm, and for the counts.
    row = {
        "network": "MobileNetV2 1.0 at 224x224",
        "weights": sum(layer.weight.size for layer in graph.layers),
        "operations": len(graph.ops),
        "lower_s": seconds(lambda: lower(module, images), args.repetitions),
        "real_forward_s": seconds(lambda: net(images), args.repetitions),
        "fake_quant_forward_s": seconds(lambda: module(images), args.repetitions),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    row["lower_per_real_forward"] = row["lower_s"] / row["real_forward_s"]
    total = row["lower_s"]
    for name, options in EXPORTS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network"
            row[f"{name}_s"] = seconds(lambda p=path, o=options: export_graph(graph, p, **o), 1)
        total += row[f"{name}_s"]
    row["lower_and_all_exports_s"] = total
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
    for name, value in rounded.items():
        print(f"{name:24} {value}")
    args.out.mkdir(exist_ok=True)
    with (args.out / "export_lower.csv").open("w", newline="") as file:
        rows = rounded | provenance(("numpy", "torch"))
        writer = csv.DictWriter(file, rows)
        writer.writeheader()
        writer.writerow(rows)


if __name__ == "__main__":
    main()
