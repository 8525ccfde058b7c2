# SPDX-License-Identifier: Apache-2.0
"""Claim: with the default rate and gradient bound, no training of the BOMP seed network fails.

    python benchmarks/training_stability.py

The seed network on digits, 53 layers deep, trained in floating point for 25 epochs, three seeds a
setting. A training below 90 % on the validation split counts as failed: the others reach 95 % or
more. One thread: tiny networks gain nothing from two.
"""

import argparse
import statistics
from dataclasses import replace

import torch
from training_results import write_rows

from bitscout.networks import build_network
from bitscout.space import BompSpace
from bitscout.training import Recipe, evaluate, load_dataset, train

FAILED_BELOW = 0.9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.2, 0.4])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("digits")
    space = BompSpace(input_shape=data.input_shape)
    architecture = space.architecture(space.seed_values())
    rows = []
    for lr in arguments.rates:
        for bound in (None, 2.0):
            phase = Recipe(epochs=arguments.epochs, lr=lr).float_phase()
            phase = replace(phase, max_grad_norm=bound)
            accuracies = []
            for seed in range(arguments.seeds):
                network = build_network(architecture, generator_seed=seed)
                train(network, data, phase, seed=seed, device="cpu")
                accuracies.append(evaluate(network, data, "val", device="cpu"))
                rows.append(
                    {
                        "lr": lr,
                        "max_grad_norm": bound,
                        "seed": seed,
                        "val_accuracy": accuracies[-1],
                    }
                )
            failed = sum(accuracy < FAILED_BELOW for accuracy in accuracies)
            middle, lowest = statistics.median(accuracies), min(accuracies)
            print(
                f"lr {lr:<4} bound {bound!s:<5} median {100 * middle:.1f} % "
                f"lowest {100 * lowest:.1f} %, {failed} of {len(accuracies)} failed",
                flush=True,
            )
            write_rows("training_stability", rows)


if __name__ == "__main__":
    main()
