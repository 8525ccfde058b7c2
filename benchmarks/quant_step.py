# SPDX-License-Identifier: Apache-2.0
"""What does a step of quantization-aware fine-tuning cost, as a multiple of a real training step?

    python benchmarks/quant_step.py

Claim: at most 1.25x. A step is forward, loss, backward and SGD with momentum on 128 images of
32x32x3, channels-last, on the CPU; the real step is that of the same network with its batch norm
in training mode. For scale: the same folded network with torch's own `fake_quantize` kernels put
in plainly, before every layer and on every weight. All are run in turn (A B C A B C ...), and the
ratios are of steps next to each other; the median and the quartiles are printed. With one thread
(the default) processor time is measured, which other programs on the machine do not inflate; with
more, wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from quant_network import resnet, write_rows
from torch import Tensor, nn
from torch.nn import functional as F

from bitscout.core import QuantPolicy
from bitscout.networks import build_network
from bitscout.quantization import (
    QuantAdd,
    QuantAvgPool,
    QuantConfig,
    QuantizedLayer,
    fold_batch_norm,
    layer_names,
    post_training_quantize,
)
from bitscout.space import BompSpace


def bomp_seed() -> nn.Module:
    space = BompSpace(widths="cifar10")
    return build_network(space.architecture(space.seed_values()), generator_seed=0)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "bomp_seed": bomp_seed,
    "resnet20": lambda: resnet(3),
}


class Native(nn.Module):
    """A convolution or linear between torch's own fake-quantizers."""

    def __init__(self, source: nn.Module, ours: QuantizedLayer) -> None:
        super().__init__()
        self.source = source
        self.step, self.range = ours.input_quantizer.step, ours.input_quantizer.code_range
        self.steps = ours.weight_quantizer.steps().detach().clone()
        self.zeros = torch.zeros(len(self.steps), dtype=torch.int32)
        self.high = ours.weight_quantizer.quant_max

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, self.step, 0, *self.range)
        weight = torch.fake_quantize_per_channel_affine(
            self.source.weight, self.steps, self.zeros, 0, -self.high, self.high
        )
        if isinstance(self.source, nn.Conv2d):
            return self.source._conv_forward(x, weight, self.source.bias)
        return F.linear(x, weight, self.source.bias)


class NativeAdd(nn.Module):
    def __init__(self, ours: QuantAdd) -> None:
        super().__init__()
        self.steps = [(q.step, q.code_range) for q in ours.input_quantizers()]

    def forward(self, *operands: Tensor) -> Tensor:
        a, b = (
            torch.fake_quantize_per_tensor_affine(x, step, 0, *code_range)
            for x, (step, code_range) in zip(operands, self.steps, strict=True)
        )
        return a + b


class NativePool(nn.Module):
    def __init__(self, ours: QuantAvgPool) -> None:
        super().__init__()
        self.pool, self.quantizer = ours.pool, ours.input_quantizer

    def forward(self, x: Tensor) -> Tensor:
        step, code_range = self.quantizer.step, self.quantizer.code_range
        return self.pool(torch.fake_quantize_per_tensor_affine(x, step, 0, *code_range))


def native(net: nn.Module, ours: nn.Module, x: Tensor) -> nn.Module:
    net = deepcopy(net)
    fold_batch_norm(net, x[:2])
    for name, module in ours.named_modules():
        parent, _, key = name.rpartition(".")
        source = dict(net.named_modules()).get(name)
        if isinstance(module, QuantizedLayer) and source is not None:
            setattr(net.get_submodule(parent), key, Native(source, module))
        elif isinstance(module, QuantAdd):
            setattr(net.get_submodule(parent), key, NativeAdd(module))
        elif isinstance(module, QuantAvgPool):
            setattr(net.get_submodule(parent), key, NativePool(module))
    return net


def step_of(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], float]:
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def step() -> float:
        start = clock()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        return clock() - start

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quant_step.csv"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(args.batch, 3, 32, 32, generator=rng).to(memory_format=torch.channels_last)
    y = torch.randint(10, (args.batch,), generator=rng)
    rows: list[dict[str, object]] = []
    for network in args.networks:
        net = NETWORKS[network]().to(memory_format=torch.channels_last).train()
        for _ in range(3):
            net(x)  # Running statistics worth folding.
        policy = QuantPolicy.uniform(layer_names(net), 4)
        variants = {"real": net}
        for name, config in (
            ("fixed", QuantConfig(learn_weight_steps=False)),
            ("learned_weights", QuantConfig(learn_weight_steps=True)),
            ("learned_both", QuantConfig(learn_weight_steps=True, learn_act_steps=True)),
        ):
            variants[name] = post_training_quantize(net, policy, x, config)
        variants["torch_native"] = native(net, variants["fixed"], x)
        steps = {name: step_of(variant, x, y) for name, variant in variants.items()}
        for step in steps.values():
            step()
        times = [{name: step() for name, step in steps.items()} for _ in range(args.rounds)]
        for name in steps:
            ratios = [round_[name] / round_["real"] for round_ in times]
            low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)).round(3).tolist()
            seconds = round(float(np.median([round_[name] for round_ in times])), 4)
            print(f"{network:10} {name:16} {middle:.2f}x [{low:.2f}, {high:.2f}] {seconds:.3f} s",
                  flush=True)  # fmt: skip
            rows.append({"network": network, "variant": name, "rounds": args.rounds,
                         "batch": args.batch, "ratio_median": middle, "ratio_q25": low,
                         "ratio_q75": high, "seconds_median": seconds, "seed": 0})  # fmt: skip
    write_rows(args.out, rows, f"python benchmarks/quant_step.py --threads {args.threads}")


if __name__ == "__main__":
    main()
