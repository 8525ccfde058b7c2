# SPDX-License-Identifier: Apache-2.0
"""Time the training loop against the textbook one, and each choice made in it, on this CPU.

Claims (rows in ``results/training_loop.csv``; all variants of a case run in turn, round by round,
so that a busy machine slows them alike; the ratio is that of the medians):

1. One epoch takes less time than the textbook loop: `DataLoader`, crop, flip and normalization
   per sample, default memory format and optimizer, ``loss.item()`` in every step.
2. Augmentation and normalization are under 5 % of a step.
3. Channels-last is faster than the default format on 3x32x32 images, and the fused optimizer no
   slower than the default one, beyond the spread of the rounds.
4. Evaluating in batches of 256 is at least as fast as in batches of 1000.

    python benchmarks/training_loop.py [--rounds 5] [--threads 2] [--shapes 1x8x8 3x32x32]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from training_recipe import small_networks
from training_results import write_rows

from bitscout.networks import build_network
from bitscout.space import BompSpace
from bitscout.training import (
    Augmenter,
    ImageData,
    Recipe,
    Split,
    default_shift,
    evaluate,
    torch_generator,
    train,
)

BATCH = 128
SHAPES = {"1x8x8": ((1, 8, 8), 1293), "3x32x32": ((3, 32, 32), 1024)}  # Shape, images.
Row = dict[str, object]


class TextbookDataset(Dataset):
    """One image at a time, the way torchvision's transforms work."""

    def __init__(self, data: ImageData) -> None:
        self.images, self.labels = data.train.images.contiguous(), data.train.labels
        self.mean = torch.tensor(data.mean).view(-1, 1, 1)
        self.std = torch.tensor(data.std).view(-1, 1, 1)
        self.pad = default_shift(*data.input_shape[1:])
        self.flip = data.flip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.images[index].float() / 255
        height, width = x.shape[1:]
        x = F.pad(x[None], (self.pad,) * 4, mode="reflect")[0]
        dy, dx = (int(torch.randint(2 * self.pad + 1, ())) for _ in range(2))
        x = x[:, dy : dy + height, dx : dx + width]
        if self.flip and torch.rand(()) < 0.5:
            x = x.flip(2)
        return (x - self.mean) / self.std, self.labels[index]


def textbook_epoch(model: nn.Module, data: ImageData) -> None:
    loader = DataLoader(TextbookDataset(data), batch_size=BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        total += loss.item()


def made_up_data(shape: tuple[int, int, int], n: int) -> ImageData:
    generator = torch_generator(0)
    images = torch.randint(256, (n, *shape), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(n) % 10)
    channels = shape[0]
    return ImageData(
        name="noise",
        train=split,
        val=split,
        test=None,
        n_classes=10,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        flip=channels == 3,
    )


def in_turn(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of every variant in every round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for current in range(rounds + 1):
        for name, run in variants.items():
            start = perf_counter()
            run()
            if current:
                times[name].append(1e3 * (perf_counter() - start))
    return times


def report(case: str, times: dict[str, list[float]]) -> list[Row]:
    """Print and return one row per variant; the ratio is to the first one."""
    base, rows = median(next(iter(times.values()))), []
    for name, values in times.items():
        row: Row = {"case": case, "variant": name, "median_ms": round(median(values), 3)}
        row |= {"min_ms": round(min(values), 3), "max_ms": round(max(values), 3)}
        row["ratio"] = round(median(values) / base, 3)
        rows.append(row)
        print(
            f"{case:28} {name:18} {row['median_ms']:>10} ms "
            f"[{row['min_ms']}, {row['max_ms']}] ratio {row['ratio']}",
            flush=True,
        )
    return rows


def steps_of(model: nn.Module, x: Tensor, fused: bool, n: int = 2) -> Callable[[], None]:
    labels = torch.arange(len(x)) % 10
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=fused
    )

    def run() -> None:
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()

    return run


def measure(case: str, build: Callable[[], nn.Module], data: ImageData, rounds: int) -> list[Row]:
    phase = replace(Recipe(epochs=1).float_phase(), batch_size=BATCH)
    ours, theirs = build(), build()
    variants: dict[str, Callable[[], object]] = {
        "bitscout": lambda: train(ours, data, phase, seed=0, device="cpu"),
        "textbook": lambda: textbook_epoch(theirs, data),
    }
    rows = report(f"{case}: epoch", in_turn(variants, rounds))

    generator, indices = torch_generator(0), torch.arange(BATCH)
    augmenter = Augmenter(data, flip=data.flip, shift=default_shift(*data.input_shape[1:]))
    x = augmenter(indices, generator)
    last, default, plain = (build() for _ in range(3))
    last.to(memory_format=torch.channels_last)
    plain.to(memory_format=torch.channels_last)
    variants = {
        "channels-last fused": steps_of(last, x, fused=True),
        "default format": steps_of(default, x.contiguous(), fused=True),
        "default optimizer": steps_of(plain, x, fused=False),
        "augmentation": lambda: [augmenter(indices, generator) for _ in range(2)],
    }
    rows += report(f"{case}: 2 steps", in_turn(variants, rounds))

    last.eval()
    variants = {
        f"batch {size}": lambda size=size: evaluate(
            last, data, "train", device="cpu", batch_size=size
        )
        for size in (256, 128, 1000)
    }
    return rows + report(f"{case}: evaluate", in_turn(variants, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[Row] = []
    for shape, n in (SHAPES[name] for name in args.shapes):
        space = BompSpace(input_shape=shape, n_classes=10)
        specs = {
            "seed": space.architecture(space.seed_values()),
            "10 kB": space.architecture(small_networks(space, 1)[0]),
        }
        for name, spec in specs.items():
            case = f"{name} {'x'.join(map(str, shape))}"
            build = lambda spec=spec: build_network(spec, generator_seed=0)  # noqa: E731
            measured = measure(case, build, made_up_data(shape, n), args.rounds)
            rows += [row | {"rounds": args.rounds, "seed": 0} for row in measured]
            write_rows("training_loop", rows)  # After each case: a whole run takes minutes.


if __name__ == "__main__":
    main()
