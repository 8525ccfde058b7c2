# SPDX-License-Identifier: Apache-2.0
"""Choose the learning rates of the recipe.

Claims, each with its rows in ``results/training_recipe_<dataset>.csv``:

1. A peak rate of 0.4 per 128 images is better than 0.1 for short trainings of the small networks
   of the BOMP space; 0.2 and 0.8 are close.
2. With the gradient's norm clipped at 1, one epoch of QAFT from 5 % of that peak gains accuracy at
   3 and 4 bits, and neither half nor twice that rate does harm. Without clipping, rates of that
   size destroy networks whose batch norm is folded.

    python benchmarks/training_recipe.py                                     # digits
    python benchmarks/training_recipe.py --dataset cifar10 --path cifar10.npz --limit 5000 \
        --epochs 8 --seeds 2
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from statistics import mean, stdev

import torch
from training_results import write_rows

from bitscout.core import QuantPolicy, Values, child_rng
from bitscout.errors import TrainingError
from bitscout.networks import build_network
from bitscout.quantization import layer_names, post_training_quantize
from bitscout.space import BompSpace
from bitscout.training import (
    ImageData,
    Recipe,
    calibration_batch,
    evaluate,
    load_dataset,
    train,
)

SIZE_BYTES = 10_000  # The class of networks the recipe is for: weights and int32 biases, 8 bits.
LRS = (0.1, 0.2, 0.4, 0.8)
FRACTIONS = (0.01, 0.025, 0.05, 0.1)
CLIPS = (None, 1.0)
DEFAULT_LR = 0.4  # The float training that QAFT starts from.


def small_networks(space: BompSpace, n: int) -> list[Values]:
    """Return the first `n` of a seeded stream of networks that fit `SIZE_BYTES` at 8 bits."""
    rng, found = child_rng(0, "training_recipe"), []
    while len(found) < n:
        values = space.sample(rng)
        values = values | {c.name: 8 for c in space.choices if c.kind == "bits"}
        if space.size_bits(space.encode(values)[None])[0] <= 8 * SIZE_BYTES:
            found.append(values)
    return found


def trained(
    space: BompSpace, values: Values, data: ImageData, recipe: Recipe, seed: int
) -> torch.nn.Module:
    model = build_network(space.architecture(values), generator_seed=seed)
    train(model, data, recipe.float_phase(), seed=seed, device="cpu")
    return model


def fine_tuned(
    model: torch.nn.Module, data: ImageData, bits: int, seed: int
) -> Iterator[dict[str, object]]:
    """Yield a row without QAFT and one for every way of it."""
    policy = QuantPolicy.uniform(layer_names(model), bits)
    start = post_training_quantize(model, policy, calibration_batch(data, 512, seed=seed))
    yield {"fraction": 0.0, "clip": ""} | accuracies(start, data)
    for clip in CLIPS:
        for fraction in FRACTIONS:
            quantized = deepcopy(start)
            phase = Recipe(lr=DEFAULT_LR, qaft_lr_fraction=fraction).qaft_phase()
            phase = replace(phase, max_grad_norm=clip)
            row: dict[str, object] = {"fraction": fraction, "clip": clip or "none"}
            try:
                train(quantized, data, phase, seed=seed, device="cpu")
                row |= accuracies(quantized, data)
            except TrainingError:
                row |= {"val_accuracy": 0.0, "test_accuracy": 0.0}
            yield row


def accuracies(model: torch.nn.Module, data: ImageData) -> dict[str, object]:
    return {
        f"{part}_accuracy": round(evaluate(model, data, part, device="cpu"), 5)
        for part in ("val", "test")
    }


def summarize(rows: list[dict[str, object]]) -> None:
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        key = f"{row['part']}, lr {row['lr']}, fraction {row['fraction']}, clip {row['clip']}"
        pair = float(str(row["val_accuracy"])), float(str(row["test_accuracy"]))
        groups[key].append(pair)
    for key, pairs in groups.items():
        parts = []
        for name, values in zip(("val", "test"), zip(*pairs, strict=True), strict=True):
            spread = stdev(values) if len(values) > 1 else 0.0
            parts.append(f"{name} {mean(values):.4f} +- {spread:.4f} (worst {min(values):.4f})")
        print(f"  {key}: {'; '.join(parts)}; n = {len(pairs)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--path")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bits", type=int, nargs="*", default=[4, 3])
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(args.dataset, args.path, limit=args.limit)
    space = BompSpace(input_shape=data.input_shape, n_classes=data.n_classes)
    rows: list[dict[str, object]] = []
    for network, values in enumerate(small_networks(space, args.networks)):
        for seed in range(args.seeds):
            common = {"network": network, "seed": seed, "epochs": args.epochs}
            for lr in LRS:
                model = trained(space, values, data, Recipe(epochs=args.epochs, lr=lr), seed)
                float_row = {"part": "float", "lr": lr, "fraction": "", "clip": ""}
                rows.append(common | float_row | accuracies(model, data))
                for bits in args.bits if lr == DEFAULT_LR else ():
                    name: dict[str, object] = {"part": f"qaft {bits} bits", "lr": lr}
                    rows += [common | name | row for row in fine_tuned(model, data, bits, seed)]
            print(f"network {network}, seed {seed} done", flush=True)
    print(f"{args.dataset}, {args.epochs} epochs, {args.networks} networks, {args.seeds} seeds")
    summarize(rows)
    print(write_rows(f"training_recipe_{args.dataset}", rows))


if __name__ == "__main__":
    main()
