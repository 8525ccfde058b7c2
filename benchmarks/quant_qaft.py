# SPDX-License-Identifier: Apache-2.0
"""Should quantization-aware fine-tuning learn its steps, and may it fold batch norm first?

    python benchmarks/quant_qaft.py CIFAR10_NPZ WEIGHTS.pt

Claims: learned weight steps (LSQ) are at least as good as fixed ones at every width and better at
2 bits; learned activation steps add nothing at 8 bits; folding batch norm before fine-tuning costs
nothing against keeping it, frozen, behind the convolution (specification A9). One epoch on 4,096
images from the calibrated ResNet-8 of `quant_network.py`, peak learning rate 2 % of the real
training's; paired seeds of the data order.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from pathlib import Path
from statistics import mean

import torch
from quant_network import accuracy, load, resnet, train, write_rows
from torch import Tensor, nn

from bitscout.core import QuantPolicy
from bitscout.quantization import (
    MseObserver,
    QuantConfig,
    QuantizedLayer,
    layer_names,
    post_training_quantize,
)


class Unfused(nn.Module):
    """A quantized layer trained through its frozen batch norm, as in specification A9.

    Trains the weight in front of the batch norm and the norm's own weight and bias; the
    statistics are frozen. The layer itself sees the folded weight, so that the result is the
    same folded integer network.
    """

    def __init__(self, layer: QuantizedLayer, norm: nn.BatchNorm2d, weight: Tensor) -> None:
        super().__init__()
        assert norm.running_var is not None
        assert norm.running_mean is not None
        self.layer = layer
        self.raw = nn.Parameter(weight.clone())
        self.gain = nn.Parameter(norm.weight.detach().clone())
        self.register_buffer("inverse_std", (norm.running_var + norm.eps).rsqrt())
        self.register_buffer("mean", norm.running_mean.clone())
        offset = layer.bias.detach() + self.mean * self.gain.detach() * self.inverse_std
        self.offset = nn.Parameter(offset)
        del layer.weight, layer.bias  # From here on plain tensors, recomputed in every forward.

    def forward(self, x: Tensor) -> Tensor:
        factor = self.gain * self.inverse_std
        self.layer.weight = self.raw * factor[:, None, None, None]
        self.layer.bias = self.offset - self.mean * factor
        return self.layer(x)


def unfuse(quantized: nn.Module, net: nn.Module) -> nn.Module:
    """Put every folded batch norm of `net` back in front of the quantizer, statistics frozen."""
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in net.named_modules():
        if isinstance(child, nn.BatchNorm2d):
            assert previous is not None
            parent, _, key = previous[0].rpartition(".")
            holder = quantized.get_submodule(parent)
            layer = quantized.get_submodule(previous[0])
            assert isinstance(layer, QuantizedLayer)
            setattr(holder, key, Unfused(layer, child, previous[1].weight.detach()))
        previous = (name, child) if isinstance(child, nn.Conv2d) else None
    return quantized


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--lr", type=float, default=0.002)
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4, 8])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--variants", nargs="+", help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quant_qaft.csv"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    x, y, xt, yt = load(args.data, args.images, 2000)
    net = resnet().to(memory_format=torch.channels_last)
    net.load_state_dict(torch.load(args.weights, weights_only=True))
    net.eval()
    print(f"real network: {accuracy(net, xt, yt):.4f}")
    fixed = QuantConfig(learn_weight_steps=False)
    learned = QuantConfig(learn_weight_steps=True)
    both = QuantConfig(learn_weight_steps=True, learn_act_steps=True)
    mse = QuantConfig(weight_observer=MseObserver(), learn_weight_steps=True)
    variants: list[tuple[str, QuantConfig, bool]] = [
        ("fixed", fixed, False),
        ("learned_weights", learned, False),
        ("learned_unfused", learned, True),
        ("learned_both", both, False),
        ("learned_from_mse", mse, False),
    ]
    rows: list[dict[str, object]] = []
    for bits in args.bits:
        for name, config, is_unfused in variants:
            if args.variants and name not in args.variants:
                continue
            if bits > 3 and "from" in name:
                continue  # Where no observer clips, they all start from the same steps.
            policy = QuantPolicy.uniform(layer_names(net), bits)
            start = post_training_quantize(net, policy, x[:512], config)
            before = accuracy(start, xt, yt)
            scores = []
            for seed in range(args.seeds):
                tuned = unfuse(deepcopy(start), net) if is_unfused else deepcopy(start)
                train(tuned, x, y, epochs=args.epochs, lr=args.lr, seed=seed)
                after = accuracy(tuned, xt, yt)
                scores.append(after)
                rows.append({"variant": name, "weight_bits": bits, "lr": args.lr,
                             "epochs": args.epochs,
                             "act_bits": 8, "seed": seed, "ptq_accuracy": before,
                             "qaft_accuracy": after})  # fmt: skip
            print(f"W{bits} {name:26} PTQ {before:.4f} QAFT {mean(scores):.4f}"
                  f" [{min(scores):.4f}, {max(scores):.4f}]", flush=True)  # fmt: skip
    options = f"--bits {' '.join(map(str, args.bits))} --epochs {args.epochs} --lr {args.lr}"
    write_rows(args.out, rows, f"python benchmarks/quant_qaft.py CIFAR10_NPZ WEIGHTS.pt {options}")


if __name__ == "__main__":
    main()
