# SPDX-License-Identifier: Apache-2.0
"""Which observer should be the default at which bit-width, and does bias correction pay?

    python benchmarks/quant_observers.py CIFAR10_NPZ WEIGHTS.pt

Claim: with bias correction largest-magnitude steps are best for weights from 4 bits on; below, see
the table. Post-training quantization of the ResNet-8 of `quant_network.py`: all layers at one
weight width, activations at 8 bits; then all weights at 8 bits and activations narrower. Accuracy
on 3,000 test images, mean and range over draws of 512 calibration images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch
from quant_network import accuracy, load, resnet, write_rows

from bitscout.core import QuantPolicy
from bitscout.quantization import (
    ActivationObserver,
    LayerOutputObserver,
    MaxAbsObserver,
    MinMaxObserver,
    MseActivationObserver,
    MseObserver,
    PercentileObserver,
    PowerOfTwoObserver,
    QuantConfig,
    WeightObserver,
    layer_names,
    post_training_quantize,
)

WEIGHT_OBSERVERS: dict[str, WeightObserver] = {
    "max_abs": MaxAbsObserver(),
    "mse": MseObserver(),
    "layer_output": LayerOutputObserver(),
    "power_of_two": PowerOfTwoObserver(),
}
ACT_OBSERVERS: dict[str, ActivationObserver] = {
    "min_max": MinMaxObserver(),
    "percentile_99.99": PercentileObserver(99.99),
    "percentile_99.9": PercentileObserver(99.9),
    "mse": MseActivationObserver(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quant_observers.csv"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    x, _, xt, yt = load(args.data, 15000, 3000)
    net = resnet().to(memory_format=torch.channels_last)
    net.load_state_dict(torch.load(args.weights, weights_only=True))
    net.eval()
    print(f"real network: {accuracy(net, xt, yt):.4f}")
    draws = [
        x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:512]]
        for seed in range(args.draws)
    ]
    rows: list[dict[str, object]] = []

    def measure(what: str, observer: str, bits: tuple[int, int], config: QuantConfig) -> None:
        policy = QuantPolicy.uniform(layer_names(net), *bits)
        scores = []
        for seed, draw in enumerate(draws):
            scores.append(accuracy(post_training_quantize(net, policy, draw, config), xt, yt))
            rows.append({"what": what, "observer": observer, "weight_bits": bits[0],
                         "act_bits": bits[1], "bias_correction": config.bias_correction,
                         "draw": seed, "test_accuracy": scores[-1]})  # fmt: skip
        corrected = "corrected" if config.bias_correction else "plain"
        print(f"{what:10} W{bits[0]} A{bits[1]} {observer:17} {corrected:9} {mean(scores):.4f}"
              f" [{min(scores):.4f}, {max(scores):.4f}]", flush=True)  # fmt: skip

    for bits in (8, 5, 4, 3, 2):
        for name, weight_observer in WEIGHT_OBSERVERS.items():
            for is_on in (False, True):
                config = QuantConfig(weight_observer=weight_observer, bias_correction=is_on)
                measure("weight", name, (bits, 8), config)
    for bits in (8, 6, 4, 3):
        for name, act_observer in ACT_OBSERVERS.items():
            measure("activation", name, (8, bits), QuantConfig(act_observer=act_observer))
    write_rows(args.out, rows, "python benchmarks/quant_observers.py CIFAR10_NPZ WEIGHTS.pt")


if __name__ == "__main__":
    main()
