# SPDX-License-Identifier: Apache-2.0
"""Draw medians and quartiles of the best value so far as one SVG, a panel a task.

Run: python benchmarks/convergence_figure.py results/kmeans_tpe_convergence_curves.csv OUT.svg
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, GAP, LEFT, TOP, BOTTOM = 420, 300, 70, 60, 30, 45
# Colours that differ in lightness too (Okabe and Ito).
COLOURS = ("#000000", "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#999999", "#cc79a7")
N_TICKS = 5


def read(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return (evaluation, q25, median, q75) by task and sampler, ``(n, 4)``."""
    curves: dict[str, dict[str, list[list[float]]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            numbers = [float(row[key]) for key in ("evaluation", "q25", "median", "q75")]
            curves.setdefault(row["task"], {}).setdefault(row["sampler"], []).append(numbers)
    return {
        task: {name: np.array(rows) for name, rows in samplers.items()}
        for task, samplers in curves.items()
    }


def panel(task: str, curves: dict[str, np.ndarray], x0: float, colour: dict[str, str]) -> str:
    """Return the elements of one panel whose plot begins at `x0`."""
    stacked = np.concatenate([rows[len(rows) // 10 :] for rows in curves.values()])
    low, high = stacked[:, 1].min(), stacked[:, 3].max()
    last = max(rows[-1, 0] for rows in curves.values())

    def place(x: np.ndarray, y: np.ndarray) -> str:
        px = x0 + x / last * WIDTH
        py = TOP + (high - np.clip(y, low, high)) / (high - low) * HEIGHT
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True))

    parts = [
        f'<rect x="{x0}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>',
        f'<text x="{x0 + WIDTH / 2}" y="{TOP - 10}" text-anchor="middle">{task}</text>',
        (
            f'<text x="{x0 + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">'
            "evaluations</text>"
        ),
    ]
    for i in range(N_TICKS):
        y = low + (high - low) * i / (N_TICKS - 1)
        py = TOP + HEIGHT * (1 - i / (N_TICKS - 1))
        parts.append(f'<text x="{x0 - 5}" y="{py + 4:.1f}" text-anchor="end">{y:.4f}</text>')
        x = last * i / (N_TICKS - 1)
        parts.append(
            f'<text x="{x0 + WIDTH * i / (N_TICKS - 1):.1f}" y="{TOP + HEIGHT + 18}" '
            f'text-anchor="middle">{x:.0f}</text>'
        )
    for name, rows in curves.items():
        x, q25, median, q75 = rows.T
        band = f"{place(x, q25)} {place(x[::-1], q75[::-1])}"
        parts.append(f'<polygon points="{band}" fill="{colour[name]}" fill-opacity="0.10"/>')
        parts.append(
            f'<polyline points="{place(x, median)}" fill="none" stroke="{colour[name]}" '
            'stroke-width="1.8"/>'
        )
    return "\n".join(parts)


def draw(curves: dict[str, dict[str, np.ndarray]]) -> str:
    """Return the SVG document."""
    names = list(dict.fromkeys(name for samplers in curves.values() for name in samplers))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    total = LEFT + len(curves) * (WIDTH + GAP)
    height = TOP + HEIGHT + BOTTOM + 22 * ((len(names) + 3) // 4)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        "<title>Best value so far: median and quartiles over seeds</title>",
        f'<rect width="{total}" height="{height}" fill="#ffffff"/>',
    ]
    parts += [
        panel(task, samplers, LEFT + i * (WIDTH + GAP), colour)
        for i, (task, samplers) in enumerate(curves.items())
    ]
    for i, name in enumerate(names):
        x, y = LEFT + (i % 4) * 220, TOP + HEIGHT + BOTTOM + 14 + 22 * (i // 4)
        parts.append(
            f'<line x1="{x}" x2="{x + 24}" y1="{y - 4}" y2="{y - 4}" stroke="{colour[name]}" '
            f'stroke-width="3"/><text x="{x + 30}" y="{y}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(draw(read(args.curves)))


if __name__ == "__main__":
    main()
