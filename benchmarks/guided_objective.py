# SPDX-License-Identifier: Apache-2.0
"""Two real mixed-precision objectives over the 10 layers of one trained ResNet-8.

The network has 77,360 weights and was trained on 20,000 images of CIFAR-10, averaged to 16 x 16
pixels so that thousands of policies can be evaluated on one core. Every layer takes one of
{2, 3, 4, 6, 8} bits.

``ptq``: share of validation images classified correctly after quantization, with steps from the
default observers, bias correction and 8-bit activations. One forward pass: the quantized weights
of each layer and bit-width are tabulated with all other layers at 8 bits, and what the first
stage's three layers compute is kept for each of their 125 policies.
``qat``: the same after four epochs of fine-tuning with learned steps on 512 images by the
package's own `post_training_quantize` and `train`; noisy, as the seed of the training differs.

Everything is kept in the working folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from bitscout.core import LayerBits, QuantPolicy
from bitscout.networks import resnet
from bitscout.quantization import (
    QuantConfig,
    fold_batch_norm,
    layer_names,
    post_training_quantize,
)
from bitscout.training import (
    ImageData,
    Recipe,
    Split,
    evaluate,
    load_dataset,
    load_weights,
    save_weights,
    train,
)

BITS = np.array((2, 3, 4, 6, 8))
N_LAYERS, N_VAL, N_CALIBRATION, N_QAT = 10, 2000, 64, 512
BATCH = 250  # Activations stay in the cache.
STEM = 3  # Layers before the cached activations.
Conv = Callable[[int, Tensor], Tensor]
Act = Callable[[int, Tensor], Tensor]


def halved(data: Path, work: Path) -> ImageData:
    """Return CIFAR-10 at half the resolution, 20,000 training and 4,000 validation images."""
    path = work / "cifar16.npz"
    if not path.exists():
        with np.load(data) as full:
            parts = {key: full[key] for key in ("x_train", "y_train", "x_test", "y_test")}
        for part, n in (("train", 24_000), ("test", 10_000)):
            x = parts[f"x_{part}"][:n].reshape(n, 16, 2, 16, 2, 3).mean(axis=(2, 4))
            parts |= {
                f"x_{part}": np.round(x).astype(np.uint8),
                f"y_{part}": parts[f"y_{part}"][:n],
            }
        np.savez(path, **parts)
    return load_dataset("npz", path, validation=1 / 6, seed=0)


class Network:
    """The trained network, what its layers' quantization errors are expected to cost, a memory.

    Attributes:
        sizes: Weights of each layer, ``(10,)``.
        losses: Trace of the Gauss-Newton matrix per weight, times half the squared error of the
            weights: the expected increase of the loss, ``(10, 5)``.
    """

    def __init__(self, cifar10: Path, work: Path) -> None:
        self.data = halved(cifar10, work)
        self.net = resnet(8).to(memory_format=torch.channels_last)
        weights = work / "resnet8.safetensors"
        if not weights.exists():
            phase = Recipe(epochs=20, flip=True).float_phase()
            train(self.net, self.data, phase, seed=0, device="cpu")
            save_weights(self.net, weights)
        load_weights(self.net, weights)
        self.net.eval()
        self.names = layer_names(self.net)
        self.normalize = self.data.normalizer()
        train_images = self.data.train.images
        self.calibration = self.normalize(train_images[:256])
        self.folded = deepcopy(self.net)
        fold_batch_norm(self.folded, self.calibration[:2])
        layers = [self.folded.get_submodule(name) for name in self.names]
        self.weights = [layer.weight.detach() for layer in layers]
        self.biases = [layer.bias.detach() for layer in layers]
        self.strides = [getattr(layer, "stride", (0,))[0] for layer in layers]
        self.paddings = [getattr(layer, "padding", (0,))[0] for layer in layers]
        self.sizes = np.array([weight.numel() for weight in self.weights])
        self.tables = self._tables(work / "tables.pt")
        if not (work / "losses.npy").exists():
            errors = [
                [float(((q - w) ** 2).sum()) for q in row]
                for row, w in zip(self.tables, self.weights, strict=True)
            ]
            traces = self._traces(self.normalize(train_images[:384]))
            np.save(work / "losses.npy", 0.5 * (traces / self.sizes)[:, None] * np.array(errors))
        self.losses = np.load(work / "losses.npy")
        self.database = sqlite3.connect(work / "memory.sqlite", timeout=300, isolation_level=None)
        self.database.execute("create table if not exists m(k text primary key, v blob)")

    def remembered(self, key: str, compute: Callable[[], bytes]) -> bytes:
        """Return what was computed under `key`, in this run or an earlier one."""
        found = self.database.execute("select v from m where k = ?", (key,)).fetchone()
        if found:
            return found[0]
        value = compute()
        self.database.execute("insert or replace into m values (?, ?)", (key, value))
        return value

    def policy(self, row: np.ndarray) -> QuantPolicy:
        bits = (LayerBits(int(BITS[j])) for j in row)
        return QuantPolicy(dict(zip(self.names, bits, strict=True)))

    def _tables(self, path: Path) -> list[list[Tensor]]:
        """Return the quantized weights of each layer at each bit-width, all others at 8 bits."""
        if not path.exists():
            tables = []
            for d, name in enumerate(self.names):
                row = []
                for j in range(len(BITS)):
                    policy = self.policy(np.where(np.arange(N_LAYERS) == d, j, 4))
                    q = post_training_quantize(self.net, policy, self.calibration[:128])
                    layer = q.get_submodule(name)
                    row.append(layer.weight_quantizer(layer.weight).detach().clone())
                tables.append(row)
            torch.save(tables, path)
        tables = torch.load(path, weights_only=True)
        return [
            [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in row]
            for row in tables
        ]

    def _traces(self, x: Tensor, draws: int = 2) -> np.ndarray:
        """Return the Gauss-Newton traces: per-sample gradients, labels drawn from the model."""
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            labels = torch.multinomial(
                self.folded(x).softmax(1), draws, replacement=True, generator=generator
            )

        def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
            logits = functional_call(self.folded, weights, (image[None],))
            return F.cross_entropy(logits, label[None])

        weights = {f"{n}.weight": w for n, w in zip(self.names, self.weights, strict=True)}
        total = dict.fromkeys(weights, 0.0)
        for start in range(0, len(x), 16):
            for draw in range(draws):
                rows = slice(start, start + 16)
                found = vmap(grad(loss), (None, 0, 0))(weights, x[rows], labels[rows, draw])
                for key, g in found.items():
                    total[key] += float((g.detach() ** 2).sum())
        return np.array(list(total.values())) / (len(x) * draws)


class PostTraining:
    """Accuracy after quantization on a random half of 2,000 validation images, one half a seed."""

    def __init__(self, network: Network) -> None:
        self.n = network
        val = network.data.val
        self.x = network.normalize(val.images[:N_VAL]).split(BATCH)
        self.y = val.labels[:N_VAL].numpy()
        self.few = network.calibration[:N_CALIBRATION]
        self.largest: dict[int, float] = {}
        self.means: list[Tensor] = [torch.empty(0)] * N_LAYERS
        self.stems: dict[tuple[int, ...], tuple[Tensor, list[Tensor]]] = {}
        with torch.inference_mode():
            # Ranges from 256 images, means from those that the biases are corrected on.
            self._real(network.calibration, keep_ranges=True)
            self._real(self.few, keep_ranges=False)

    def __call__(self, row: np.ndarray, seed: int, trial: int) -> float:
        """Return the accuracy of the policy `row` in the study of `seed`."""
        half = np.random.default_rng([seed, 35]).permutation(N_VAL)[: N_VAL // 2]
        return float(self.hits(row)[half].mean())

    def reference(self, seed: int) -> float:
        """Return the accuracy with 8 bits everywhere, to make seeds comparable."""
        return self(np.full(N_LAYERS, 4), seed, 0)

    def hits(self, row: np.ndarray) -> np.ndarray:
        """Return which of the 2,000 images are classified correctly."""
        key = "".join(str(int(j)) for j in row)
        packed = self.n.remembered(
            key, lambda: np.packbits(self._predict(row) == self.y).tobytes()
        )
        return np.unpackbits(np.frombuffer(packed, np.uint8))[:N_VAL].astype(bool)

    def _predict(self, row: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scale = self.largest[STEM - 1] / 255
            few, images = self._stem(tuple(int(j) for j in row[:STEM]), scale)
            biases = list(self.n.biases)
            self._rest(
                few.float().mul_(scale), self._quantized(row, biases, is_first=True), self._act
            )
            conv = self._quantized(row, biases, is_first=False)
            logits = [self._rest(x.float().mul_(scale), conv, self._act) for x in images]
            return torch.cat(logits).argmax(1).numpy()

    def _stem(self, row: tuple[int, ...], scale: float) -> tuple[Tensor, list[Tensor]]:
        """Return the codes behind the first stage, for the calibration and validation images."""
        if row not in self.stems:
            biases = list(self.n.biases)
            few = self._first(self.few, self._quantized(row, biases, is_first=True), self._act)
            conv = self._quantized(row, biases, is_first=False)
            images = [self._first(x, conv, self._act) for x in self.x]
            codes = [(x / scale).round_().to(torch.uint8) for x in (few, *images)]
            self.stems[row] = codes[0], codes[1:]
        return self.stems[row]

    def _conv(self, d: int, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if d == N_LAYERS - 1:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, self.n.strides[d], self.n.paddings[d])

    def _quantized(self, row: np.ndarray, biases: list[Tensor], *, is_first: bool) -> Conv:
        """Return the layers of a policy; the first run corrects the biases for later ones."""

        def conv(d: int, x: Tensor) -> Tensor:
            y = self._conv(d, x, self.n.tables[d][row[d]], biases[d])
            if is_first:
                delta = self.means[d] - y.mean((0, 2, 3) if y.dim() == 4 else 0)
                biases[d] = biases[d] + delta
                y = y + (delta[:, None, None] if y.dim() == 4 else delta)
            return y

        return conv

    def _real(self, x: Tensor, *, keep_ranges: bool) -> None:
        """Keep the mean of each layer's output, and the range of each activation."""

        def conv(d: int, x: Tensor) -> Tensor:
            y = self._conv(d, x, self.n.weights[d], self.n.biases[d])
            self.means[d] = y.mean((0, 2, 3) if y.dim() == 4 else 0)
            return y

        def act(place: int, x: Tensor) -> Tensor:
            if keep_ranges:
                self.largest[place] = float(x.abs().max())
            return x

        self._rest(self._first(x, conv, act), conv, act)

    def _act(self, place: int, x: Tensor) -> Tensor:
        """Quantize to 8 bits: places from 9 on carry signs."""
        low, high = (-127, 127) if place >= 9 else (0, 255)
        scale = self.largest[place] / high
        return x.mul(1 / scale).round_().clamp_(low, high).mul_(scale)

    def _first(self, x: Tensor, conv: Conv, act: Act) -> Tensor:
        a = act(0, F.relu(conv(0, act(9, x))))
        b = act(1, F.relu(conv(1, a)))
        return act(2, F.relu(act(10, conv(2, b)) + a))

    def _rest(self, x: Tensor, conv: Conv, act: Act) -> Tensor:
        for d in (3, 6):
            a = act(d, F.relu(conv(d, x)))
            y, shortcut = act(10 + d, conv(d + 1, a)), act(11 + d, conv(d + 2, x))
            x = act(d + 1, F.relu(y + shortcut))
        return conv(N_LAYERS - 1, x.mean((2, 3)))


class FineTuned:
    """Accuracy on 1,000 validation images after four epochs; each trial trains by its own seed."""

    def __init__(self, network: Network) -> None:
        self.n = network
        data = network.data
        first = Split(data.train.images[:N_QAT], data.train.labels[:N_QAT])
        val = Split(data.val.images[: N_VAL // 2], data.val.labels[: N_VAL // 2])
        self.data = ImageData(
            name=data.name, train=first, val=val, test=None, n_classes=10,
            mean=data.mean, std=data.std, flip=True,
        )  # fmt: skip
        self.phase = Recipe(qaft_epochs=4).qaft_phase()

    def __call__(self, row: np.ndarray, seed: int, trial: int) -> float:
        """Return the accuracy of the policy `row` as that trial of the study of `seed`."""
        key = f"qat {''.join(str(int(j)) for j in row)} {seed} {trial}"
        return float(self.n.remembered(key, lambda: repr(self._train(row, seed, trial)).encode()))

    def reference(self, seed: int) -> float:
        """Return 0: all seeds see the same images."""
        return 0.0

    def _train(self, row: np.ndarray, seed: int, trial: int) -> float:
        q = post_training_quantize(
            self.n.net,
            self.n.policy(row),
            self.n.calibration[:128],
            QuantConfig(learn_weight_steps=True),
        )
        train(q, self.data, self.phase, seed=1000 * seed + trial, device="cpu")
        return evaluate(q, self.data, "val", device="cpu")


OBJECTIVES = {"ptq": PostTraining, "qat": FineTuned}
