# SPDX-License-Identifier: Apache-2.0
"""The trained ResNet-8 that `qat_low_bits.py` and `peer_mct.py` quantize.

    python benchmarks/low_bit_network.py CIFAR10_NPZ --out resnet8.safetensors

77,360 weights, trained by the project's recipe on 16,000 CIFAR-10 images for 14 epochs: 76.8 % of
the test images. CIFAR10_NPZ holds uint8 `x_train, y_train, x_test, y_test`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from bitscout.networks import build_model
from bitscout.training import (
    ImageData,
    Recipe,
    evaluate,
    load_dataset,
    load_weights,
    save_weights,
    train,
)

N_IMAGES, VALIDATION, EPOCHS = 20_000, 0.2, 14


def load_data(path: Path) -> ImageData:
    return load_dataset("cifar10", path, validation=VALIDATION, seed=0, limit=N_IMAGES)


def load_network(weights: Path) -> nn.Module:
    net = build_model("resnet8")
    load_weights(net, weights)
    return net.eval().to(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("resnet8.safetensors"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, net = load_data(args.data), build_model("resnet8")
    train(
        net,
        data,
        Recipe(epochs=EPOCHS).float_phase(),
        seed=0,
        device="cpu",
        on_epoch=lambda epoch, n, loss, s: print(f"{epoch}/{n} {loss:.3f} {s:.0f} s", flush=True),
    )
    save_weights(net, args.out)
    print(f"test accuracy {evaluate(net, data, 'test', device='cpu'):.4f}")


if __name__ == "__main__":
    main()
