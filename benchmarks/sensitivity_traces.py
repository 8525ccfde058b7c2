# SPDX-License-Identifier: Apache-2.0
"""How long do the three estimators of sensitivity take, how sure are they, do they agree?

    python benchmarks/sensitivity_traces.py CIFAR10_NPZ WEIGHTS.safetensors --train
    python benchmarks/sensitivity_traces.py CIFAR10_NPZ WEIGHTS.safetensors

Claim: on a trained ResNet-20 and 512 images of CIFAR-10 the default, `gauss_newton`, is more than
50 times faster than PyHessian, probing layer by layer, at no larger error given the same images,
and orders the layers the same way (Spearman at least 0.95).

The first command trains the network. PyHessian (0.1, MIT) must be importable; it is not a
dependency. It has the same network with folded batch norms, all images in one batch, and one layer
after the other, which is its fastest way: the gradient is differentiated once and reused.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from quant_network import accuracy, load, train, write_rows
from scipy.stats import spearmanr
from torch import Tensor, nn

from bitscout.networks import build_model
from bitscout.quantization import fold_batch_norm, layer_names
from bitscout.sensitivity import (
    EmpiricalFisher,
    Estimator,
    GaussNewton,
    Hutchinson,
    measure_sensitivity,
)
from bitscout.training import load_weights, save_weights

Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--train", action="store_true", help="train the network and stop")
    parser.add_argument("--train-images", type=int, default=10000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--probes", type=int, default=100, help="of PyHessian, at most")
    default_out = Path("benchmarks/results/sensitivity_traces.csv")
    parser.add_argument("--out", type=Path, default=default_out)
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = build_model("resnet20")
    if args.train:
        x, y, xt, yt = load(args.data, args.train_images, 2000)
        train(net, x, y, epochs=args.epochs, lr=0.1, seed=0)
        print(f"test accuracy {accuracy(net, xt, yt):.4f}")
        save_weights(net, args.weights)
        return
    load_weights(net, args.weights)
    x, y, xt, yt = load(args.data, args.images, 2000)
    print(f"test accuracy {accuracy(net, xt, yt):.4f}")
    compare(net.eval(), x.contiguous(), y, args)


def compare(net: nn.Module, x: Tensor, y: Tensor, args: argparse.Namespace) -> None:
    estimators: tuple[Estimator, ...] = (
        GaussNewton(),
        GaussNewton(draws=10),
        EmpiricalFisher(),
        Hutchinson(),
    )
    rows: list[Row] = []
    for estimator in estimators:
        rows += ours(net, x, y, estimator)
    rows += pyhessian(net, x, y, args.probes)
    write_rows(args.out, rows, "python benchmarks/sensitivity_traces.py CIFAR10_NPZ WEIGHTS")
    report(rows)


def ours(net: nn.Module, x: Tensor, y: Tensor, estimator: Estimator) -> list[Row]:
    name = estimator.name
    if isinstance(estimator, GaussNewton):
        name += f" ({estimator.draws} draws)" if estimator.draws < 10 else " (all classes)"
    start, cpu = time.perf_counter(), time.process_time()
    found = measure_sensitivity(net, x, y, estimator=estimator)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{name:26} {seconds:8.1f} s, {cpu:8.1f} s of processor", flush=True)
    return [
        {
            "estimator": name,
            "layer": layer.name,
            "n_weights": layer.n_weights,
            "trace": layer.trace,
            "standard_error": layer.standard_error,
            "probe_error": layer.probe_error,
            "n_probes": layer.n_probes,
            "seconds_of_all_layers": seconds,
            "processor_seconds_of_all_layers": cpu,
        }
        for layer in found.layers
    ]


def pyhessian(net: nn.Module, x: Tensor, y: Tensor, max_probes: int) -> list[Row]:
    from pyhessian import hessian

    fold_batch_norm(net, x[:2])
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    net.requires_grad_(False)
    rows: list[Row] = []
    start, cpu = time.perf_counter(), time.process_time()
    for name in layer_names(net):
        # The weights of one layer are all it sees: its graph then begins there, which is faster
        # than a graph of the whole network.
        weight = net.get_submodule(name).weight
        weight.requires_grad_(True)
        probes = hessian(net, nn.CrossEntropyLoss(), data=(x, y), cuda=False).trace(max_probes)
        weight.requires_grad_(False)
        weight.grad = None
        error = float(np.std(probes, ddof=1) / np.sqrt(len(probes))) if len(probes) > 1 else np.nan
        rows.append(
            {
                "estimator": "PyHessian",
                "layer": name,
                "n_weights": weight.numel(),
                "trace": float(np.mean(probes)),
                "standard_error": "",
                "probe_error": error,
                "n_probes": len(probes),
            }
        )
        print(f"PyHessian {name} {np.mean(probes):.4g} +- {error:.2g} ({len(probes)}) "
              f"{time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    for row in rows:
        row |= {"seconds_of_all_layers": seconds, "processor_seconds_of_all_layers": cpu}
    return rows


def report(rows: list[Row]) -> None:
    names = list(dict.fromkeys(str(row["estimator"]) for row in rows))
    tables = {name: [row for row in rows if row["estimator"] == name] for name in names}
    peer = tables["PyHessian"]
    slow = float(str(peer[0]["processor_seconds_of_all_layers"]))
    scores = {n: [float(str(r["trace"])) / int(str(r["n_weights"])) for r in t]
              for n, t in tables.items()}  # fmt: skip
    for name, table in tables.items():
        cpu = float(str(table[0]["processor_seconds_of_all_layers"]))
        errors = [float(str(row["probe_error"])) / abs(float(str(row["trace"]))) for row in table]
        rho = spearmanr(scores[name], scores["PyHessian"]).statistic
        rho_own = spearmanr(scores[name], scores["hessian"]).statistic
        print(f"{name:26} {cpu:8.1f} s {slow / cpu:7.1f}x  error given the images "
              f"{100 * np.median(errors):.1f} % (largest {100 * max(errors):.1f} %)  "
              f"Spearman with PyHessian {rho:.3f}, with hessian {rho_own:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
