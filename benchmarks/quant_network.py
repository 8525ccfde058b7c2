# SPDX-License-Identifier: Apache-2.0
"""The network, data and float training shared by the quantization benchmarks.

    python benchmarks/quant_network.py CIFAR10_NPZ --out resnet8.pt

trains a ResNet-8 (0.078 M parameters) on the first images of CIFAR-10 and saves its weights; the
other `quant_*` benchmarks read them. CIFAR10_NPZ holds uint8 `x_train, y_train, x_test, y_test`.
"""

from __future__ import annotations

import argparse
import csv
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitscout.quantization import Add

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        first, second = conv_bn(c_in, c_out, 3, stride), conv_bn(c_out, c_out, 3, 1)
        self.body = nn.Sequential(*first, nn.ReLU(inplace=True), *second)
        is_same = stride == 1 and c_in == c_out
        self.shortcut = (
            nn.Identity() if is_same else nn.Sequential(*conv_bn(c_in, c_out, 1, stride))
        )
        self.add = Add()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.add(self.body(x), self.shortcut(x)))


def resnet(n_blocks: int = 1, n_classes: int = 10) -> nn.Module:
    """Return a CIFAR ResNet of depth ``6 * n_blocks + 2`` with projection shortcuts."""
    layers: list[nn.Module] = [*conv_bn(3, 16, 3, 1), nn.ReLU(inplace=True)]
    c_in = 16
    for c_out in (16, 32, 64):
        for index in range(n_blocks):
            layers.append(Block(c_in, c_out, 2 if c_out > 16 and index == 0 else 1))
            c_in = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n_classes))


def images(x: np.ndarray) -> Tensor:
    scaled = torch.from_numpy(x).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return scaled.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def load(path: Path, n_train: int, n_test: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with np.load(path) as data:
        x, y = images(data["x_train"][:n_train]), torch.from_numpy(data["y_train"][:n_train])
        xt, yt = images(data["x_test"][:n_test]), torch.from_numpy(data["y_test"][:n_test])
    return x, y.long(), xt, yt.long()


def augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Flip half of the images and shift the batch by up to four pixels."""
    flip = torch.rand(len(x), generator=rng) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    dy, dx = torch.randint(0, 9, (2,), generator=rng).tolist()
    return F.pad(x, (4, 4, 4, 4))[:, :, dy : dy + 32, dx : dx + 32]


def train(
    net: nn.Module, x: Tensor, y: Tensor, *, epochs: int, lr: float, seed: int, wd: float = 5e-4
) -> None:
    """SGD with Nesterov momentum, batch 128, one linear warm-up (20 %) and decay to 0."""
    rng = torch.Generator().manual_seed(seed)
    decayed = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": wd}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    n_steps = epochs * (len(x) // 128)
    step = 0
    net.train()
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        for index in torch.randperm(len(x), generator=rng).split(128):
            if len(index) < 128:
                continue
            factor = min(step / (0.2 * n_steps), (n_steps - step) / (0.8 * n_steps))
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            loss = F.cross_entropy(net(augment(x[index], rng)), y[index], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
            step += 1
        if epochs > 1:
            loss_mean, seconds = total / (len(x) // 128), time.perf_counter() - start
            print(f"epoch {epoch} loss {loss_mean:.3f} {seconds:.1f} s", flush=True)


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    net.eval()
    hits = sum(
        int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True)
    )
    return hits / len(x)


def write_rows(path: Path, rows: list[dict[str, object]], command: str) -> None:
    """Write one CSV with where the numbers come from in every row."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    where = {
        "commit": commit,
        "cpu": model,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": command,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *where], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **where} for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("resnet8.pt"))
    parser.add_argument("--images", type=int, default=15000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(args.seed)
        net = resnet().to(memory_format=torch.channels_last)
    x, y, xt, yt = load(args.data, args.images, 5000)
    train(net, x, y, epochs=args.epochs, lr=0.1, seed=args.seed)
    print(f"test accuracy {accuracy(net, xt, yt):.4f}")
    torch.save(net.state_dict(), args.out)


if __name__ == "__main__":
    main()
