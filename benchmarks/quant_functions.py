# SPDX-License-Identifier: Apache-2.0
"""What do networks with sums in their code, and with late batch norms, cost and lose?

    python benchmarks/quant_functions.py

Claim: a quantized ResNet-20 that writes ``a + b`` and ``x.mean((2, 3))`` computes what one with
`Add` and pool modules computes, in at most 1.15 times its processor time. And an 8-bit factor and
shift in the place of a batch norm that no layer absorbs loses nothing: a pre-activation ResNet on
the digits (1,297 images for training, 500 for testing), after calibration, against the same
network with these norms in floating point, mean of the seeds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from quant_network import write_rows
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from bitscout.core import QuantPolicy
from bitscout.quantization import (
    Add,
    QuantizedLayer,
    layer_names,
    post_training_quantize,
    scale_sites,
)
from bitscout.training import fork_rng


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, *, is_modular: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.relu, self.last = nn.ReLU(), nn.ReLU()
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)
        self.add = Add() if is_modular else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        z = self.shortcut(x)
        return self.last(y + z if self.add is None else self.add(y, z))


class ResNet20(nn.Module):
    def __init__(self, *, is_modular: bool) -> None:
        super().__init__()
        widths = [16] * 4 + [32] * 3 + [64] * 3
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU())
        self.blocks = nn.Sequential(
            *(
                Block(widths[i], widths[i + 1], 2 if i in (3, 6) else 1, is_modular=is_modular)
                for i in range(9)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1) if is_modular else None
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.head(x.mean((2, 3)) if self.pool is None else self.pool(x).flatten(1))


class PreActivationBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        return self.conv2(F.relu(self.norm2(self.conv1(y)))) + self.shortcut(y)


def pre_activation() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        PreActivationBlock(8, 8, 1),
        PreActivationBlock(8, 16, 2),
        PreActivationBlock(16, 16, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def trained(x: Tensor, y: Tensor, n_epochs: int) -> nn.Module:
    net = pre_activation().train()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(n_epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    return net.eval()


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((net(x).argmax(1) == y).double().mean()) * 100


def with_real_norms(net: nn.Module, names: set[str]) -> nn.Module:
    """Let the quantized norms compute in floating point, the bias as it was corrected."""
    for module in net.modules():
        if isinstance(module, QuantizedLayer) and module.name in names:
            module.quantized = module.real  # type: ignore[method-assign]
    return net


def norms(n_seeds: int, n_epochs: int) -> list[dict[str, object]]:
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(digits.target)
    rows: list[dict[str, object]] = []
    for seed in range(n_seeds):
        with fork_rng(seed):
            net = trained(x[:-500], y[:-500], n_epochs)
        late = set(scale_sites(net, x[:2]))
        names = layer_names(net, x[:2])
        for bits in (8, 4, 3):
            policy = QuantPolicy.uniform(names, bits)
            quantized = post_training_quantize(net, policy, x[:512]).eval()
            found = {"float": net, "8-bit norms": quantized}
            for variant, one in found.items():
                rows.append(row("norms", variant, bits, seed, accuracy(one, x[-500:], y[-500:])))
            real = with_real_norms(quantized, late)
            rows.append(row("norms", "real norms", bits, seed, accuracy(real, x[-500:], y[-500:])))
    return rows


def overhead(rounds: int) -> list[dict[str, object]]:
    x = torch.randn(128, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nets = {}
    for name, is_modular in (("modules", True), ("functions", False)):
        with fork_rng(0):
            net = ResNet20(is_modular=is_modular).eval()
        nets[name] = post_training_quantize(net, QuantPolicy.uniform(layer_names(net), 4), x)
    with torch.no_grad():
        assert torch.equal(nets["modules"](x), nets["functions"](x))
    rows = []
    for batch in (1, 128):
        times: dict[str, list[float]] = {name: [] for name in nets}
        for _ in range(rounds * (10 if batch == 1 else 1)):
            for name, net in nets.items():
                start = time.process_time()
                with torch.no_grad():
                    net(x[:batch])
                times[name].append(time.process_time() - start)
        ratio = float(np.median(np.divide(times["functions"], times["modules"])))
        rows.append(row("overhead", f"batch {batch}", 4, 0, ratio))
    return rows


def row(part: str, variant: str, bits: int, seed: int, value: float) -> dict[str, object]:
    return {"part": part, "variant": variant, "bits": bits, "seed": seed, "value": round(value, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quant_functions.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [*overhead(args.rounds), *norms(args.seeds, args.epochs)]
    write_rows(args.out, rows, "python benchmarks/quant_functions.py")
    keys = {(str(r["part"]), str(r["variant"]), str(r["bits"])) for r in rows}
    for key in sorted(keys):
        values = [r["value"] for r in rows if (r["part"], r["variant"], str(r["bits"])) == key]
        print(*key, np.round(np.mean(np.array(values, dtype=float)), 3))


if __name__ == "__main__":
    main()
