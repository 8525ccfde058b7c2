"""Hand-built integer graphs with random weights, for tests of everything behind the lowering."""

from __future__ import annotations

import numpy as np

from bitscout.export.fixed_point import fixed_point
from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    Grid,
    Input,
    IntegerGraph,
    Linear,
    MaxPool,
    PadChannels,
    Relu,
    Rescale,
    SumPool,
)
from bitscout.export.windows import Windows


class GraphBuilder:
    """Adds operations one by one; every method returns the name of its tensor.

    Args:
        seed: Of weights, biases and steps.
        power_of_two: Make every step a power of two, so that ties happen.
    """

    def __init__(self, seed, *, power_of_two=False):
        self.rng = np.random.default_rng(seed)
        self.power_of_two = power_of_two
        self.ops = {}

    def add(self, op):
        self.ops[op.name] = op
        return op.name

    def step(self, low, high, shape=()):
        values = self.rng.uniform(low, high, shape)
        if self.power_of_two:
            values = np.exp2(np.round(np.log2(values)))
        # As from a float32 network.
        return np.asarray(values, dtype=np.float32).astype(np.float64)

    def grid(self, scale, bits=8, *, signed=False, zero_point=0):
        low = -(2 ** (bits - 1)) + 1 if signed else 0
        high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        return Grid(np.asarray(scale), bits, low, high, zero_point)

    def input(self, shape, bits=8, *, signed=False, zero_point=0, name="image"):
        grid = self.grid(self.step(0.01, 0.02), bits, signed=signed, zero_point=zero_point)
        return self.add(Input(name, tuple(shape), grid))

    def conv(
        self,
        x,
        out_channels,
        kernel=3,
        *,
        bits=8,
        stride=1,
        pads=None,
        groups=1,
        dilation=1,
        bias=True,
    ):
        source = self.ops[x]
        channels, height, width = source.shape
        pair = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = (pair[0] // 2, pair[1] // 2) * 2 if pads is None else pads
        extent = [dilation * (k - 1) + 1 for k in pair]
        out_h = (height + pads[0] + pads[2] - extent[0]) // stride + 1
        out_w = (width + pads[1] + pads[3] - extent[1]) // stride + 1
        weight, scale = self.weights((out_channels, channels // groups, *pair), bits)
        return self.add(
            Conv(
                f"conv{len(self.ops)}",
                (x,),
                (out_channels, out_h, out_w),
                Grid.sums(source.grid.scale * scale),
                weight,
                bits,
                scale,
                self.bias(out_channels) if bias else None,
                (stride, stride),
                tuple(pads),
                (dilation, dilation),
                groups,
            )
        )

    def linear(self, x, out_features, *, bits=8, bias=True):
        source = self.ops[x]
        weight, scale = self.weights((out_features, source.shape[0]), bits)
        return self.add(
            Linear(
                f"fc{len(self.ops)}",
                (x,),
                (out_features,),
                Grid.sums(source.grid.scale * scale),
                weight,
                bits,
                scale,
                self.bias(out_features) if bias else None,
            )
        )

    def weights(self, shape, bits):
        high = 2 ** (bits - 1) - 1
        weight = self.rng.integers(-high, high + 1, shape).astype(np.int8)
        return weight, self.step(0.001, 0.01, shape[:1])

    def bias(self, channels):
        return self.rng.integers(-2000, 2000, channels)

    def rescale(self, *inputs, bits=8, signed=False, zero_point=0, spread=60.0, divisor=1):
        """To codes; `spread` is the typical magnitude of the codes that come out."""
        sources = [self.ops[x] for x in inputs]
        typical = max(self.typical(source) for source in sources)
        scale = self.step(0.8, 1.25) * np.float64(np.float32(typical / spread))
        if self.power_of_two:
            scale = np.exp2(np.round(np.log2(scale)))
        grid = self.grid(scale, bits, signed=signed, zero_point=zero_point)
        return self.to_grid(inputs, grid, divisor)

    def typical(self, source):
        """A real value of usual size in this tensor."""
        scale = float(np.mean(source.grid.scale))
        if not source.grid.is_sums:
            return scale * source.grid.quant_max / 2
        if isinstance(source, Conv | Linear):
            fan_in = source.weight[0].size
            x = self.ops[source.inputs[0]].grid
            codes = float(np.std(source.weight.astype(float))) * x.quant_max / 2
            return scale * (codes * fan_in**0.5 + 1000)
        return self.typical(self.ops[source.inputs[0]])

    def to_grid(self, inputs, grid, divisor=1):
        sources = [self.ops[x] for x in inputs]
        ratios = np.stack(
            np.broadcast_arrays(*[np.atleast_1d(s.grid.scale / grid.scale) for s in sources])
        )
        multiplier, shift = fixed_point(ratios, int(np.max(divisor)))
        return self.add(
            Rescale(
                f"rescale{len(self.ops)}",
                tuple(inputs),
                sources[0].shape,
                grid,
                multiplier,
                shift,
                np.asarray(divisor, dtype=np.int64),
            )
        )

    def logits(self, x):
        """The output: sums on one step."""
        scale = self.ops[x].grid.scale
        return x if not scale.ndim else self.to_grid([x], Grid.sums(np.asarray(scale.max())))

    def sum_pool(self, x, windows=None):
        source = self.ops[x]
        windows = windows or windows_of(source.shape[1:])
        grid = Grid.sums(source.grid.scale)
        shape = (source.shape[0], *windows.output_size)
        return self.add(SumPool(f"sum{len(self.ops)}", (x,), shape, grid, windows))

    def max_pool(self, x, windows):
        source = self.ops[x]
        shape = (source.shape[0], *windows.output_size)
        return self.add(MaxPool(f"max{len(self.ops)}", (x,), shape, source.grid, windows))

    def relu(self, x):
        source = self.ops[x]
        return self.add(Relu(f"relu{len(self.ops)}", (x,), source.shape, source.grid))

    def concat(self, *inputs):
        sources = [self.ops[x] for x in inputs]
        grid = sources[0].grid
        if grid.is_sums:
            scales = [np.broadcast_to(s.grid.scale, s.shape[:1]) for s in sources]
            grid = Grid.sums(np.concatenate(scales))
        shape = (sum(s.shape[0] for s in sources), *sources[0].shape[1:])
        return self.add(Concat(f"concat{len(self.ops)}", tuple(inputs), shape, grid))

    def pad_channels(self, x, before, after):
        source = self.ops[x]
        shape = (before + source.shape[0] + after, *source.shape[1:])
        return self.add(PadChannels(f"wide{len(self.ops)}", (x,), shape, source.grid, before))

    def flatten(self, x):
        source = self.ops[x]
        grid = source.grid
        if grid.scale.ndim:
            grid = Grid.sums(np.repeat(grid.scale, int(np.prod(source.shape[1:]))))
        shape = (int(np.prod(source.shape)),)
        return self.add(Flatten(f"flatten{len(self.ops)}", (x,), shape, grid))

    def build(self, output, *, one_step=True):
        """End in `output`, brought to one step for all classes or as it is."""
        if one_step:
            output = self.logits(output)
        return IntegerGraph(tuple(self.ops.values()), output)

    def images(self, n):
        """Real images that use the whole range of the input's codes."""
        source = next(op for op in self.ops.values() if isinstance(op, Input))
        grid = source.grid
        low = (grid.quant_min - grid.zero_point) * grid.scale
        high = (grid.quant_max - grid.zero_point) * grid.scale
        return self.rng.uniform(low, high, (n, *source.shape)).astype(np.float32)


def windows_of(size, kernel=None, stride=None, padding=0):
    """Square pooling windows, cut at the border; all of `size` without a kernel."""
    height, width = size
    if kernel is None:
        return Windows(((0, height),), ((0, width),), (height, width))
    stride = stride or kernel

    def spans(edge):
        count = (edge + 2 * padding - kernel) // stride + 1
        starts = [i * stride - padding for i in range(count)]
        return tuple((max(s, 0), min(s + kernel, edge)) for s in starts)

    return Windows(spans(height), spans(width), (height, width))


def tiny_net(seed=0, *, power_of_two=False, one_step=True):
    """Every width from 8 to 2 bits: convolutions, depthwise ones, a pool, a linear layer."""
    b = GraphBuilder(seed, power_of_two=power_of_two)
    x = b.input((3, 16, 16))
    x = b.rescale(b.conv(x, 16, stride=2, bits=8))
    x = b.rescale(b.conv(x, 16, groups=16, bits=6), bits=6, spread=20)
    x = b.rescale(b.conv(x, 32, 1, bits=5))
    x = b.rescale(b.conv(x, 32, groups=32, stride=2, bits=4), bits=4, spread=6)
    x = b.rescale(b.conv(x, 48, 1, bits=3))
    x = b.rescale(b.sum_pool(x), divisor=16)
    return b, b.build(b.linear(b.flatten(x), 10, bits=2), one_step=one_step)


def residual_net(seed=0, *, power_of_two=False, zero_point=0):
    """Two readers of one result, a residual addition, max pool, concatenation, average pool."""
    b = GraphBuilder(seed, power_of_two=power_of_two)
    x = b.input((3, 12, 12), signed=True)
    stem = b.conv(x, 8, 3, bits=4)
    codes = b.rescale(stem, bits=5, spread=12)
    shortcut = b.rescale(stem, signed=True, zero_point=zero_point)
    branch = b.conv(codes, 8, 3, bits=3, groups=2)
    branch = b.rescale(branch, signed=True, zero_point=zero_point)
    total = b.rescale(branch, shortcut, bits=7, spread=30)
    pooled = b.max_pool(total, windows_of((12, 12), 3, 2, 1))
    left = b.conv(pooled, 6, (1, 3), bits=2)
    right = b.conv(pooled, 4, 1, bits=7, bias=False)
    both = b.rescale(b.concat(left, right), signed=True, zero_point=zero_point)
    windows = windows_of((6, 6), 3, 2, 1)
    averaged = b.rescale(b.sum_pool(both, windows), divisor=windows.counts)
    return b, b.build(b.linear(b.flatten(averaged), 7, bits=6))


def relu_net(seed=0):
    """Sums added, concatenated, pooled and rectified before any rescale: functional networks."""
    b = GraphBuilder(seed)
    x = b.input((4, 9, 9), bits=6)
    left, right = b.conv(x, 6, 3, bits=5), b.conv(x, 6, 5, bits=3, pads=(2, 2, 2, 2))
    added = b.rescale(left, right)
    y = b.relu(b.conv(added, 8, 3, stride=2, pads=(0, 1, 1, 0), bits=8))
    y = b.rescale(b.sum_pool(b.max_pool(y, windows_of((4, 4), 2))), divisor=4)
    return b, b.build(b.linear(b.flatten(y), 5, bits=4, bias=False))


def widened_net(seed=0, *, power_of_two=False):
    """Shortcuts without parameters: channels of zeros around codes of several grids."""
    b = GraphBuilder(seed, power_of_two=power_of_two)
    x = b.rescale(b.conv(b.input((3, 6, 6), zero_point=9), 4), zero_point=11)
    y = b.rescale(b.conv(x, 7, stride=2), signed=True, zero_point=-3)
    fewer = b.max_pool(x, windows_of((6, 6), 1, 2))
    z = b.rescale(b.pad_channels(fewer, 1, 2), y, bits=5, signed=True, spread=12)
    wide = b.pad_channels(b.rescale(b.conv(z, 7), bits=4, spread=6), 0, 3)
    mean = b.rescale(b.sum_pool(wide), divisor=9)
    return b, b.build(b.linear(b.pad_channels(b.flatten(mean), 2, 0), 4, bits=4))
