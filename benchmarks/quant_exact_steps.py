# SPDX-License-Identifier: Apache-2.0
"""What do steps cost that make float32 arithmetic exact, against free ones?

    python benchmarks/quant_exact_steps.py CIFAR10_NPZ WEIGHTS.pt

Claim: `QuantConfig(exact_steps=True)` costs less than half a point of accuracy at every width,
after calibration and after one epoch of fine-tuning, beyond the spread of the differences. Two
networks: the ResNet-8 of `quant_network.py` on CIFAR-10, and the seed network of the preset
quickstart on digits, trained here by its final recipe. Paired: both variants see the same
calibration images, 512 for each seed, and the same order of data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import quant_network
import torch
from quant_network import write_rows
from torch import Tensor, nn

from bitscout.core import LayerBits, QuantPolicy
from bitscout.networks import build_network
from bitscout.quantization import QuantConfig, layer_names, post_training_quantize
from bitscout.space import BompSpace
from bitscout.training import Recipe, calibration_batch, evaluate, load_dataset, train

VARIANTS = {"free": QuantConfig(exact_steps=False), "exact": QuantConfig(exact_steps=True)}
WIDTHS = [(2, 8), (3, 8), (4, 8), (6, 8), (8, 8), (8, 4), (4, 4), (8, 3)]


@dataclass(frozen=True)
class Case:
    """A trained network, its calibration images by seed, its fine-tuning and its accuracy."""

    name: str
    net: nn.Module
    calibration: Callable[[int], Tensor]
    tune: Callable[[nn.Module, int], object]
    accuracy: Callable[[nn.Module], float]


def cifar(data: Path, weights: Path, n_test: int) -> Case:
    x, y, xt, yt = quant_network.load(data, 4096, n_test)
    net = quant_network.resnet().to(memory_format=torch.channels_last)
    net.load_state_dict(torch.load(weights, weights_only=True))
    return Case(
        "resnet8_cifar10",
        net.eval(),
        lambda seed: x[512 * seed : 512 * (seed + 1)],
        lambda model, seed: quant_network.train(model, x, y, epochs=1, lr=0.002, seed=seed),
        lambda model: quant_network.accuracy(model, xt, yt),
    )


def digits() -> Case:
    data = load_dataset("digits", None, validation=0.2, seed=0)
    space = BompSpace(input_shape=data.input_shape, n_classes=data.n_classes)
    net = build_network(space.architecture(space.seed_values()), generator_seed=0)
    recipe = Recipe(epochs=30, qaft_epochs=1)
    train(net, data, recipe.float_phase(), seed=0, device="cpu")
    return Case(
        "bomp_seed_digits",
        net,
        lambda seed: calibration_batch(data, 512, seed=seed),
        lambda model, seed: train(model, data, recipe.qaft_phase(), seed=seed, device="cpu"),
        lambda model: evaluate(model, data, "test", device="cpu"),
    )


def rows_of(
    case: Case, weight_bits: int, act_bits: int, seeds: int
) -> Iterator[dict[str, object]]:
    names = layer_names(case.net)
    policy = QuantPolicy({name: LayerBits(weight_bits, act_bits) for name in names})
    for seed in range(seeds):
        for variant, config in VARIANTS.items():
            model = post_training_quantize(case.net, policy, case.calibration(seed), config)
            row: dict[str, object] = {
                "network": case.name,
                "weight_bits": weight_bits,
                "act_bits": act_bits,
                "seed": seed,
                "variant": variant,
                "ptq_accuracy": round(case.accuracy(model), 5),
            }
            tuned = deepcopy(model)
            case.tune(tuned, seed)
            yield row | {"qaft_accuracy": round(case.accuracy(tuned), 5)}


def summary(rows: list[dict[str, object]]) -> str:
    parts = []
    for key in ("ptq_accuracy", "qaft_accuracy"):
        by_variant = {
            name: [100 * float(str(row[key])) for row in rows if row["variant"] == name]
            for name in VARIANTS
        }
        differences = [b - a for a, b in zip(*by_variant.values(), strict=True)]
        spread = stdev(differences) if len(differences) > 1 else 0.0
        means = ", ".join(f"{name} {mean(values):.2f}" for name, values in by_variant.items())
        parts.append(f"{key[:4]} {means}: {mean(differences):+.2f} +- {spread:.2f}")
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-images", type=int, default=5000)
    parser.add_argument("--networks", nargs="+", default=["digits", "cifar"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/quant_exact_steps.csv")
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    command = (
        f"python benchmarks/quant_exact_steps.py CIFAR10_NPZ WEIGHTS.pt --seeds {args.seeds} "
        f"--test-images {args.test_images} --networks {' '.join(args.networks)}"
    )
    rows: list[dict[str, object]] = []
    for network in args.networks:
        case = (
            digits() if network == "digits" else cifar(args.data, args.weights, args.test_images)
        )
        print(f"{case.name}: real {100 * case.accuracy(case.net):.2f} %", flush=True)
        for weight_bits, act_bits in WIDTHS:
            found = list(rows_of(case, weight_bits, act_bits, args.seeds))
            print(f"  W{weight_bits} A{act_bits} {summary(found)}", flush=True)
            rows += found
            write_rows(args.out, rows, command)


if __name__ == "__main__":
    main()
