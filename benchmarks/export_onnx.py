# SPDX-License-Identifier: Apache-2.0
"""What does an ONNX file cost to write, and to run, as a multiple of the float network?

    python benchmarks/export_onnx.py

Claims: writing a network of MobileNetV2's size (2.2 million weights, 52 convolutions) takes under
a second; every convolution is fused. The network has random integer weights of `--bits` bits on
8-bit activations, MobileNetV2's widths and strides for 32x32 images. Its peer is the same file
with the QuantizeLinear and DequantizeLinear nodes taken out and weights in float32. ``naive``
stores all weights signed: on a processor without VNNI it is faster and wrong at 8 bits
(docs/adr/0007-onnx-on-avx2.md). Files run in turn in ONNX Runtime with all optimisations and one
thread (A B C A B C ...); ratios are of runs next to each other, of processor time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from quant_network import write_rows

from bitscout.export.fixed_point import fixed_point
from bitscout.export.graph import (
    Conv,
    Flatten,
    Grid,
    Input,
    IntegerGraph,
    Linear,
    Rescale,
    SumPool,
)
from bitscout.export.onnx_qdq import onnx_model, onnx_payload, storage, write_onnx
from bitscout.export.windows import Windows

# Expansion, channels, repetitions, stride: Table 2 of the MobileNetV2 paper, strides for 32x32.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2),
          (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip


class Builder:
    def __init__(self, bits: int) -> None:
        self.rng, self.bits, self.ops = np.random.default_rng(0), bits, {}

    def add(self, op):
        self.ops[op.name] = op
        return op

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.ops)}"

    def conv(self, x, channels: int, kernel: int, *, stride: int = 1, is_depthwise=False):
        """A convolution and its rescale; linear, without ReLU, where it projects."""
        groups = x.shape[0] if is_depthwise else 1
        high = 2 ** (self.bits - 1) - 1
        weight = self.rng.integers(
            -high, high + 1, (channels, x.shape[0] // groups, kernel, kernel)
        )
        scale = self.rng.uniform(0.01, 0.02, channels).astype(np.float32).astype(float)
        size = [-(-edge // stride) for edge in x.shape[1:]]
        grid = Grid.sums(x.grid.scale * scale)
        pads = ((kernel - 1) // 2,) * 4 if stride == 1 else (0, 0, 1, 1)
        return self.add(
            Conv(self.name("conv"), (x.name,), (channels, *size), grid, weight.astype(np.int8),
                 self.bits, scale, self.rng.integers(-99, 99, channels), (stride, stride), pads,
                 groups=groups)
        )  # fmt: skip

    def codes(self, *xs, divisor: int = 1, is_signed: bool = False):
        step = np.float64(np.float32(np.mean(xs[0].grid.scale) * 2.0**6))
        grid = Grid(step, 8, -127 if is_signed else 0, 127 if is_signed else 255)
        ratios = np.broadcast_arrays(*[np.atleast_1d(x.grid.scale / step) for x in xs])
        multiplier, shift = fixed_point(np.stack(ratios))
        names = tuple(x.name for x in xs)
        return self.add(
            Rescale(self.name("codes"), names, xs[0].shape, grid, multiplier, shift,
                    np.array(divisor))
        )  # fmt: skip


def mobilenet_v2(bits: int) -> IntegerGraph:
    b = Builder(bits)
    x = b.add(Input("image", (3, 32, 32), Grid(np.array(0.02), 8, -127, 127)))
    x = b.codes(b.conv(x, 32, 3))
    for expansion, channels, repetitions, stride in BLOCKS:
        for index in range(repetitions):
            step = stride if index == 0 else 1
            wide = x.shape[0] * expansion
            y = x if expansion == 1 else b.codes(b.conv(x, wide, 1))
            y = b.codes(b.conv(y, wide, 3, stride=step, is_depthwise=True))
            y = b.codes(b.conv(y, channels, 1), is_signed=True)
            is_same = step == 1 and x.shape[0] == channels
            x = b.codes(x, y, is_signed=True) if is_same else y
    x = b.codes(b.conv(x, 1280, 1))
    height, width = x.shape[1:]
    windows = Windows(((0, height),), ((0, width),), (height, width))
    x = b.add(SumPool("sum", (x.name,), (1280, 1, 1), Grid.sums(x.grid.scale), windows))
    x = b.codes(x, divisor=height * width)
    x = b.add(Flatten("flatten", (x.name,), (1280,), x.grid))
    weight = b.rng.integers(-1, 2, (10, 1280)).astype(np.int8)
    scale = np.full(10, 0.01)
    grid = Grid.sums(x.grid.scale * scale)
    b.add(Linear("classifier", ("flatten",), (10,), grid, weight, bits, scale, None))
    return IntegerGraph(tuple(b.ops.values()), "classifier")


def float_peer(graph: IntegerGraph) -> onnx.ModelProto:
    """The same network without its integers: ReLU where codes are unsigned."""
    model = onnx_model(graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            codes, scale, zeros = (numpy_helper.to_array(constants[name]) for name in node.input)
            shape = (-1, *[1] * (codes.ndim - 1))
            values = (codes.astype(float) - zeros.reshape(shape)) * scale.reshape(shape)
            name = node.output[0]
            model.graph.initializer.append(
                numpy_helper.from_array(values.astype(np.float32), name)
            )
        elif (
            node.op_type == "QuantizeLinear"
            and numpy_helper.to_array(constants[node.input[2]]) == 0
        ):
            kept.append(onnx.helper.make_node("Relu", node.input[:1], node.output))
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear", "Clip"):
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 4])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/export_onnx.csv"))
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    for bits in args.bits:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(mobilenet_v2(bits), bits, Path(folder), args)
    write_rows(args.out, rows, "python benchmarks/export_onnx.py")


def measure(
    graph: IntegerGraph, bits: int, folder: Path, args: argparse.Namespace
) -> list[dict[str, object]]:
    seconds, paths = {}, {}
    for kind in ("int8", "packed", "int4"):
        paths[kind] = folder / f"{kind}.onnx"
        start = time.process_time()
        write_onnx(graph, paths[kind], kind)
        seconds[kind] = time.process_time() - start
    paths["float"], paths["naive"] = folder / "float.onnx", folder / "naive.onnx"
    onnx.save(float_peer(graph), paths["float"])
    can_saturate, storage.can_saturate = storage.can_saturate, lambda *_: False
    write_onnx(graph, paths["naive"])
    storage.can_saturate = can_saturate
    sessions = {name: session(path) for name, path in paths.items()}
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch, 3, 32, 32)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(args.rounds + 1):
        for name, running in sessions.items():
            start = time.process_time()
            running.run(None, {"input": images})
            times[name].append(time.process_time() - start)
    rows = []
    for name, path in paths.items():
        ratios = np.array(times[name][1:]) / np.array(times["float"][1:])
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)).round(3).tolist()
        kinds = Counter(n.op_type for n in onnx.load(path.with_suffix(".optimized")).graph.node)
        weight_bytes = onnx_payload(path).weight_bytes if name != "float" else 0
        row = {"bits": bits, "file": name, "batch": args.batch, "rounds": args.rounds,
               "ratio_to_float_median": middle, "ratio_q25": low, "ratio_q75": high,
               "write_s": round(seconds.get(name, 0.0), 3), "file_bytes": path.stat().st_size,
               "weight_bytes": weight_bytes, "fused_convs": kinds["QLinearConv"],
               "weights": sum(x.weight.size for x in graph.layers), "seed": 0}  # fmt: skip
        print(row, flush=True)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
