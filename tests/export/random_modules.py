"""Randomly wired PyTorch networks, as users write them, for tests of the lowering."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bitscout.quantization import Add

POOLS = ("max", "average", "adaptive_average", "adaptive_max", "mean_keep")


class RandomNet(nn.Module):
    """A network of random modules and functions on a (N, 3, 6..9, 6..9) image.

    ``forward`` is plain Python over a list of results: any of them may be read several times.

    Args:
        seed: Of everything.
        functional: Also use functions on real tensors (``a + b``, `F.avg_pool2d`, ``mean``);
            otherwise all that is added or averaged is quantized first.
        n_ops: Random operations in front of the end.
    """

    def __init__(self, seed, *, functional=False, n_ops=6):
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.functional = functional
        self.generator = torch.Generator().manual_seed(seed)
        self.parts = nn.ModuleList()
        self.steps = []
        size = self.rng.integers(6, 10, 2).tolist()
        self.image_shape = (3, *size)
        self.values = [torch.randn((2, *self.image_shape), generator=self.generator)]
        self.step(self.conv(0), 0)
        for _ in range(n_ops):
            self.extend()
        self.end()
        del self.values
        self.eval()

    def forward(self, x):
        values = [x]
        for function, sources in self.steps:
            run = self.parts[function] if isinstance(function, int) else function
            values.append(run(*[values[index] for index in sources]))
        return values[-1]

    # ---------------------------------------------------------------- making it

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def maybe(self):
        return bool(self.rng.integers(2))

    def step(self, function, *sources):
        """Add one step; return its index."""
        if isinstance(function, nn.Module):
            with torch.no_grad():
                for parameter in function.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=self.generator) * 0.4)
            self.parts.append(function)
            function.eval()
        with torch.no_grad():
            self.values.append(function(*[self.values[index] for index in sources]).clone())
        is_module = isinstance(function, nn.Module)
        self.steps.append((len(self.parts) - 1 if is_module else function, sources))
        return len(self.values) - 1

    def any(self, dims=4, shape=None):
        found = [
            index
            for index, value in enumerate(self.values)
            if index and value.dim() == dims and shape in (None, value.shape)
        ]
        return self.pick(*found)

    def extend(self):
        source = self.any()
        kind = self.pick(
            "conv", "conv", "conv", "act", "act", "pool", "add", "add", "cat", "plain"
        )
        if kind == "conv":
            self.step(self.conv(source), source)
        elif kind == "act":
            self.step(self.activation(), source)
        elif kind == "pool":
            self.step(self.pool(source), source)
        elif kind == "add":
            self.step(self.addition(), source, self.any(shape=self.values[source].shape))
        elif kind == "cat":
            size = self.values[source].shape[2:]
            others = [i for i, v in enumerate(self.values) if v.dim() == 4 and v.shape[2:] == size]
            self.step(lambda *x: torch.cat(x, dim=1), source, self.pick(*others))
        else:
            self.step(self.pick(nn.Identity(), nn.Dropout(0.3), torch.clone), source)

    def conv(self, source):
        channels, height, width = self.values[source].shape[1:]
        groups = self.pick(1, 1, *[g for g in (2, 3, channels) if channels % g == 0])
        out = groups * int(self.rng.integers(1, 3 if groups > 3 else 4))
        kernel = tuple(int(k) for k in self.rng.integers(1, 4, 2))
        dilation = self.pick(1, 1, 2)
        before, after = [], []
        if self.pick(0, 0, 1):
            layer = nn.Conv2d(
                channels, out, kernel, padding="same", dilation=dilation, groups=groups
            )
        else:
            stride = self.pick(1, 1, 2) if min(height, width) > 2 else 1
            needed = [max(0, dilation * (k - 1) + 1 - n) for k, n in zip(kernel, (height, width))]  # noqa: B905
            pads = tuple(n + int(self.rng.integers(0, 2)) for n in needed)
            if self.maybe():
                sides = self.rng.integers(0, 2, 4).tolist()
                before = [nn.ZeroPad2d(sides)]
            layer = nn.Conv2d(
                channels, out, kernel, stride, pads, dilation, groups, bias=self.maybe()
            )
        if self.maybe():
            norm = nn.BatchNorm2d(out)
            norm.running_mean.normal_(generator=self.generator)
            norm.running_var.uniform_(0.5, 2, generator=self.generator)
            after = [norm]
        return nn.Sequential(*before, layer, *after) if before or after else layer

    def activation(self):
        return self.pick(
            nn.ReLU(),
            nn.ReLU6(),
            nn.Hardtanh(),
            nn.ReLU(inplace=True),
            nn.ReLU6(inplace=True),
            F.relu,
            F.relu6,
            torch.relu,
            lambda x: F.relu(x, inplace=True),
            lambda x: x.clamp(min=0),
            lambda x: x.clip(-2, 3),
            lambda x: F.hardtanh(x, -0.5, 1.5),
        )

    def pool(self, source):
        height, width = self.values[source].shape[2:]
        kernel = tuple(int(self.rng.integers(1, min(n, 3) + 1)) for n in (height, width))
        stride = self.pick(None, 1, 2)
        padding = tuple(int(self.rng.integers(0, k // 2 + 1)) for k in kernel)
        ceil = self.maybe()
        out = tuple(int(self.rng.integers(1, 4)) for _ in range(2))
        average = (kernel, stride, padding, ceil, self.maybe(), self.pick(None, None, 5))
        options = [
            nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil),
            nn.AvgPool2d(*average),
            nn.AdaptiveAvgPool2d(out),
            nn.AdaptiveMaxPool2d(out),
            lambda x: F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil),
            lambda x: F.adaptive_max_pool2d(x, out),
        ]
        if self.functional:
            options += [
                lambda x: F.avg_pool2d(x, *average),
                lambda x: F.adaptive_avg_pool2d(x, out),
                lambda x: x.mean((2, 3), keepdim=True),
            ]
        return self.pick(*options)

    def addition(self):
        options = [Add(), Add()]
        if self.functional:
            options += [
                lambda a, b: a + b,
                torch.add,
                lambda a, b: sum([a, b]),
                lambda a, b: a.clone().add_(b),
                _add_in_place,
            ]
        return self.pick(*options)

    def end(self):
        source = len(self.values) - 1
        kind = self.pick("map", "pool", "linear", "linear", "linear", "relu")
        if kind == "map":
            self.step(self.conv(source), source)
            return
        if kind == "relu":
            self.step(self.pick(nn.ReLU(), F.relu), self.step(self.conv(source), source))
            return
        pool = nn.AdaptiveAvgPool2d(1)
        if self.functional and self.maybe():
            pool = lambda x: x.mean((2, 3), keepdim=True)  # noqa: E731
        if kind == "pool":
            self.step(pool, source)
            return
        if self.maybe():
            source = self.step(pool, source)
        flat = self.pick(
            nn.Flatten(),
            lambda x: x.view(x.size(0), -1),
            lambda x: x.reshape(len(x), -1),
            lambda x: torch.flatten(x, 1),
        )
        source = self.step(flat, source)
        for _ in range(self.pick(1, 1, 2)):
            features = self.values[source].shape[1]
            source = self.step(nn.Linear(features, self.pick(3, 5)), source)
            if self.maybe():
                source = self.step(nn.ReLU(), source)


def _add_in_place(a, b):
    a = a.clone()
    a += b
    return a
