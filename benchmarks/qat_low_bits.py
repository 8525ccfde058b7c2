# SPDX-License-Identifier: Apache-2.0
"""How good can uniform networks of 2, 3, 4 and 8 bits be made in five epochs of fine-tuning?

    python benchmarks/qat_low_bits.py CIFAR10_NPZ WEIGHTS.safetensors

Claim: with batch norms alive and learned weight steps a ResNet-8 keeps its accuracy at 3 bits and
loses two points at 2; with batch norms folded and frozen it loses six. This is the line that a
searched network of the same bytes has to be above. All weights have the same bits, first and last
layer too, or 8 in those two (`ends`); activations have 8. WEIGHTS comes from
`low_bit_network.py`; the float network is at 76.8 % of the test images. Variants:

    folded-fixed     batch norms folded and frozen, steps of the weights fixed (ADR 4)
    folded-learned   the same, steps learned (LSQ)
    revived-fixed    batch norms alive, folded at the end; steps fixed
    revived-learned  the same, steps learned: the default for given networks (ADR 14)
    revived-adam     the same with Adam, weight decay 1e-4 and one cycle, as k-means TPE's paper
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path

import torch
from low_bit_network import load_data, load_network
from provenance import provenance

from bitscout.core import LayerBits, QuantPolicy
from bitscout.quantization import QuantConfig, layer_names, post_training_quantize
from bitscout.training import Phase, Recipe, calibration_batch, evaluate, train

HERE = Path(__file__).parent
FOLDED_LR, REVIVED_LR, ADAM_LR = 0.02, 0.05, 0.002
N_CALIBRATION = 512


def phase_of(variant: str, epochs: int, lr: float | None) -> Phase:
    kind = variant.partition("-")[0]
    if variant == "revived-adam":
        recipe = Recipe(optimizer="adam", epochs=epochs, lr=lr or ADAM_LR)
        phase = replace(recipe.float_phase(), max_grad_norm=None)
    else:
        peak = lr or (FOLDED_LR if kind == "folded" else REVIVED_LR)
        recipe = Recipe(qaft_epochs=epochs, lr=peak, qaft_lr_fraction=1.0)
        phase = recipe.qaft_phase()
    is_frozen = kind == "folded"
    return replace(
        phase,
        name=variant,
        batch_norm="frozen" if is_frozen else "revived",
        precision="float32",
    )


def policy_of(names: list[str], bits: int, ends: int | None) -> QuantPolicy:
    widths = dict.fromkeys(names, bits) | dict.fromkeys((names[0], names[-1]), ends or bits)
    return QuantPolicy({name: LayerBits(width, 8) for name, width in widths.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4, 8])
    parser.add_argument("--variants", nargs="+", default=["folded-fixed", "revived-learned"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--ends", type=int, help="bits of the first and last layer; as the others")
    parser.add_argument("--lr", type=float, help="peak learning rate; that of the variant")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--free-steps", action="store_true", help="any steps, not exact ones")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "qat_low_bits.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, net = load_data(args.data), load_network(args.weights)
    names = layer_names(net)
    for seed in args.seeds:
        images = calibration_batch(data, N_CALIBRATION, seed=seed)
        for bits in args.bits:
            for variant in args.variants:
                policy = policy_of(names, bits, args.ends)
                config = QuantConfig(
                    learn_weight_steps=not variant.endswith("fixed"),
                    exact_steps=not args.free_steps,
                )
                quantized = post_training_quantize(net, policy, images, config)
                before = evaluate(quantized, data, "test", device="cpu")
                phase = phase_of(variant, args.epochs, args.lr)
                start = time.process_time()
                train(quantized, data, phase, seed=seed, device="cpu")
                seconds = time.process_time() - start
                row = {
                    "variant": variant,
                    "weight_bits": bits,
                    "end_bits": args.ends or bits,
                    "weight_bytes": sum(
                        net.get_submodule(name).weight.numel() * policy[name].weight_bits / 8
                        for name in names
                    ),
                    "steps": "free" if args.free_steps else "exact",
                    "epochs": args.epochs,
                    "peak_lr": phase.peak_lr,
                    "seed": seed,
                    "calibrated_test": before,
                    "val_accuracy": evaluate(quantized, data, "val", device="cpu"),
                    "test_accuracy": evaluate(quantized, data, "test", device="cpu"),
                    "cpu_seconds": round(seconds, 1),
                }
                append(args.out, row)
                print(row, flush=True)


def append(path: Path, row: dict[str, object]) -> None:
    """Add one row, with its provenance; the header where the file is new."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        columns = row | provenance()
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(columns)


if __name__ == "__main__":
    main()
