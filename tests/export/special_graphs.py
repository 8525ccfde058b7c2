"""Graphs with what networks seldom have, for the C and its memory."""

from __future__ import annotations

from tests.export.graphs import GraphBuilder, widened_net, windows_of

from bitscout.export.graph import IntegerGraph


def codes_as_output():
    """Images of codes: what comes out is in the graph's own numbers and order."""
    b = GraphBuilder(4)
    x = b.input((3, 5, 4))
    x = b.rescale(b.conv(x, 6), zero_point=7)
    return b, IntegerGraph(tuple(b.ops.values()), x)


def input_as_output():
    b = GraphBuilder(5)
    return b, IntegerGraph((b.ops[b.input((3, 2, 4), zero_point=9)],), "image")


def two_inputs():
    """The same image on two grids, and an output that is read by another operation."""
    b = GraphBuilder(6)
    x, y = b.input((2, 4, 4)), b.input((2, 4, 4), bits=4, signed=True, name="image 4")
    both = b.rescale(b.conv(x, 4), b.conv(y, 4))
    sums = b.logits(b.linear(b.flatten(both), 3))
    b.relu(sums)
    return b, IntegerGraph(tuple(b.ops.values()), sums)


def image_of_sums():
    """An output with rows and columns, of a grouped convolution with several per channel."""
    b = GraphBuilder(7)
    x = b.rescale(b.conv(b.input((6, 7, 5), zero_point=100), 6, groups=6), signed=True)
    x = b.conv(x, 18, (3, 2), groups=6, dilation=2, pads=(1, 2, 3, 0), stride=2, bits=3)
    return b, b.build(x)


def many_readers():
    """One layer, three grids; a pool whose output goes on as it is and divided."""
    b = GraphBuilder(8, power_of_two=True)
    stem = b.conv(b.input((1, 6, 6)), 5, 3)
    parts = [b.rescale(stem, bits=bits, signed=bits < 4, spread=2.0**bits / 4)
             for bits in (8, 3, 2)]  # fmt: skip
    total = b.rescale(*parts, signed=True)
    again = b.rescale(total, total, bits=6, spread=20)
    mean = b.rescale(b.sum_pool(again, windows_of((6, 6), 3, 2, 1)), divisor=9)
    return b, b.build(b.linear(b.flatten(b.max_pool(mean, windows_of((3, 3), 2, 1))), 4, bits=5))


def additions():
    """Operands of other zero points, widths and steps, small and large against the result's."""
    b = GraphBuilder(9)
    stem = b.conv(b.input((3, 4, 4)), 5, 1)
    x = b.rescale(stem, zero_point=30)
    y = b.rescale(stem, bits=4, signed=True, spread=6, zero_point=-3)
    z = b.rescale(x, y, bits=5, spread=12, zero_point=2)
    for factor in (2.0**-12, 0.3, 2.0**16, 2.0**25, 2.0**32):
        step = b.ops[z].grid.scale * factor
        both = b.to_grid([z, x], b.grid(step, signed=True, zero_point=-5))
        z = b.rescale(both, z, y, zero_point=1)
    return b, b.build(b.linear(b.flatten(z), 6))


def dilated():
    """Windows with gaps that begin in the middle of a gap, with and without groups."""
    b = GraphBuilder(10)
    x = b.rescale(b.conv(b.input((4, 6, 7)), 6, 3, dilation=2, pads=(1, 3, 2, 1)), zero_point=4)
    x = b.rescale(b.conv(x, 4, 3, groups=2, dilation=2, pads=(3, 1, 1, 3), bits=5), signed=True)
    return b, b.build(b.conv(x, 3, (1, 2), dilation=3, pads=(0, 1, 0, 5)))


def shared_sums():
    """Sums that are rescaled, rectified, added and pooled, all at once."""
    b = GraphBuilder(11)
    x = b.conv(b.input((2, 5, 5)), 4)
    codes = b.rescale(x, bits=6, spread=20)
    parts = [b.rescale(b.relu(x)), b.rescale(x, codes), b.max_pool(codes, windows_of((5, 5), 5))]
    parts[2] = b.rescale(parts[2])
    flat = [b.flatten(b.rescale(b.conv(part, 3, 1))) for part in parts]
    sums = [b.linear(part, 4) for part in flat]
    return b, b.build(b.linear(b.rescale(*sums), 5))


SPECIAL = [
    widened_net,
    additions,
    dilated,
    shared_sums,
    codes_as_output,
    input_as_output,
    two_inputs,
    image_of_sums,
    many_readers,
]
