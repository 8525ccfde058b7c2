# SPDX-License-Identifier: Apache-2.0
"""How many instructions does the generated C take for a multiply-accumulate on a Cortex-M4?

    python benchmarks/export_c.py

Claim: at most 8 at -O3 for a convolutional network. A naive program is built and run next to it:
the same file with one plain loop over every window instead of the kernels of the convolutions,
which looks at the border for every weight. Both must give the reference's integers. Instructions,
not cycles, counted by QEMU's model of the MPS2 AN386; the count does not vary. Networks: the seed
of the BOMP space and a ResNet of 8 layers, at 2 to 8 bits drawn for every layer, untrained, their
batch norm calibrated on random images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from quant_network import resnet, write_rows
from torch import nn

from bitscout.core import LayerBits, QuantPolicy
from bitscout.export.c import TestVectors, write_c
from bitscout.export.c.header import macs
from bitscout.export.c.names import kernel_text
from bitscout.export.c.program import Program
from bitscout.export.checks.tools import run_tool
from bitscout.export.graph import IntegerGraph
from bitscout.export.lowering import lower
from bitscout.networks import build_network
from bitscout.quantization import QuantConfig, layer_names, post_training_quantize
from bitscout.space import BompSpace

NAIVE = """
KERNEL void {kernel}(const layer_t *layer, const int8_t *in, int8_t *rows, int8_t *patch,
                 const target_t *targets, int32_t n_targets)
{{
    const int32_t depth = layer->in_channels / layer->groups;
    const int32_t out_depth = layer->out_channels / layer->groups;
    const int32_t n = layer->kernel_height * layer->kernel_width * depth;
    int32_t channel, y, x, row, column, i;
    (void)patch;
    for (channel = 0; channel < layer->out_channels; channel++) {{
        const int8_t *w = (const int8_t *)layer->weights + channel * n;
        if (layer->bits != 8u) {{
            unpack(layer->weights, channel * n, n, layer->bits, rows, 1);
            w = rows;
        }}
        for (y = 0; y < layer->out_height; y++) {{
            for (x = 0; x < layer->out_width; x++) {{
                int32_t at = 0;
                uint32_t sum = layer->bias == NULL ? 0u : layer->bias[channel];
                for (row = 0; row < layer->kernel_height; row++) {{
                    for (column = 0; column < layer->kernel_width; column++) {{
                        for (i = 0; i < depth; i++) {{
                            const int32_t from_y = y * layer->stride_y - layer->top +
                                                   row * layer->dilation_y;
                            const int32_t from_x = x * layer->stride_x - layer->left +
                                                   column * layer->dilation_x;
                            const int32_t is_inside = from_y >= 0 && from_y < layer->in_height &&
                                                      from_x >= 0 && from_x < layer->in_width;
                            const int32_t from = (from_y * layer->in_width + from_x) *
                                                 layer->in_channels + channel / out_depth * depth;
                            const int8_t value = is_inside ? in[from + i] : layer->zero;
                            sum += (uint32_t)((int32_t)w[at++] * (int32_t)value);
                        }}
                    }}
                }}
                finish(targets, n_targets, &sum, 1, 1, 1, y * layer->out_width + x,
                       layer->out_channels, channel);
            }}
        }}
    }}
}}
"""


def bomp_seed() -> nn.Module:
    space = BompSpace(widths="cifar10")
    return build_network(space.architecture(space.seed_values()), generator_seed=0)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "bomp_seed": bomp_seed,
    "resnet8": lambda: resnet(1),
}


def integer_graph(net: nn.Module) -> IntegerGraph:
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net.train()
    for _ in range(3):
        net(images)  # Running statistics worth folding.
    rng = np.random.default_rng(0)
    policy = QuantPolicy(
        {name: LayerBits(int(rng.integers(2, 9)), 8) for name in layer_names(net)}
    )
    prepared = post_training_quantize(net.eval(), policy, images, QuantConfig())
    return lower(prepared.eval(), images[:1])


def numbers(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def measure(folder: Path, flags: str) -> dict[str, int]:
    """Build and run; wrong integers end the benchmark."""
    for target in ("clean", "qemu"):
        done = run_tool(["make", target, f"ARM_FLAGS={flags}"], folder=folder, timeout_s=600)
    text = done.stderr + done.stdout.decode()
    assert "\nPASS" in text, text
    sized = run_tool(["arm-none-eabi-size", "net.o"], folder=folder, timeout_s=60)
    flash, data, bss = (int(word) for word in sized.stdout.split(b"\n")[1].split()[:3])
    found = numbers(text)
    return {
        "instructions": found["instructions"],
        "flash_bytes": flash + data,
        "ram_bytes": data + bss + found["stack_bytes"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/export_c.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for network in args.networks:
        graph = integer_graph(NETWORKS[network]())
        n_macs = macs(Program.of(graph))
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "net"
            write_c(graph, folder, name="net", vectors=TestVectors.random(graph, 1),
                    target="cortex-m")  # fmt: skip
            variants = {(level, "bitscout"): measure(folder, level) for level in ("-O3", "-Os")}
            source = folder / "net.c"
            text = source.read_text()
            for kernel in ("conv", "depthwise"):
                text = text.replace(kernel_text(f"{kernel}.c"), NAIVE.format(kernel=kernel))
            source.write_text(text)
            variants["-O3", "naive"] = measure(folder, "-O3 -Wno-error")
        naive = variants["-O3", "naive"]["instructions"]
        for (level, kernels), found in variants.items():
            per_mac = round(found["instructions"] / n_macs, 2)
            ratio = round(found["instructions"] / naive, 3)
            print(f"{network:10} {kernels:9} {level} {per_mac:6.2f} instructions/MAC "
                  f"{ratio:.2f}x {found}", flush=True)  # fmt: skip
            rows.append({"network": network, "kernels": kernels, "level": level, "macs": n_macs,
                         "instructions_per_mac": per_mac, "ratio_to_naive": ratio, **found,
                         "seed": 0})  # fmt: skip
    write_rows(args.out, rows, "python benchmarks/export_c.py")


if __name__ == "__main__":
    main()
