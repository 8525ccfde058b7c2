"""Randomly wired integer graphs, for properties that must hold whatever the network."""

from __future__ import annotations

from tests.export.graphs import GraphBuilder, windows_of

from bitscout.export.windows import Windows


def random_net(seed, n_ops=8):
    """A builder and its graph: every operation, any widths, zero points, several readers."""
    b = GraphBuilder(seed)
    b.power_of_two = bool(b.rng.integers(2))
    size = b.rng.integers(1, 9, 2).tolist()
    signed = bool(b.rng.integers(2))
    x = b.input(
        (int(b.rng.integers(1, 7)), *size),
        bits=pick(b, range(2, 9)),
        signed=signed,
        zero_point=int(b.rng.integers(2)),
    )
    codes, sums = [x], []
    for _ in range(n_ops):
        extend(b, codes, sums)
    last = b.flatten(sums[-1] if sums and b.rng.integers(2) else codes[-1])
    if b.ops[last].grid.is_sums:
        return b, b.build(last)
    return b, b.build(b.linear(last, 5, bits=pick(b, range(2, 9)), bias=bool(b.rng.integers(2))))


def pick(b, options):
    options = list(options)
    return options[int(b.rng.integers(len(options)))]


def extend(b, codes, sums):
    """Add one operation that reads any of the tensors there are."""
    kinds = ["conv", "conv", "max_pool", "sum_pool", "concat_codes", "add_codes"]
    kinds += ["rescale", "rescale", "relu", "add_sums", "concat_sums", "max_pool_sums"] * bool(
        sums
    )
    kind = pick(b, kinds)
    source = pick(b, sums if kind in ("rescale", "relu", "max_pool_sums") else codes)
    if kind == "conv":
        sums.append(random_conv(b, source))
    elif kind in ("max_pool", "max_pool_sums"):
        target = codes if kind == "max_pool" else sums
        target.append(b.max_pool(source, random_windows(b, b.ops[source].shape[1:])))
    elif kind == "sum_pool":
        windows = random_windows(b, b.ops[source].shape[1:])
        counts = windows.counts
        same = counts.min() == counts.max()
        pooled = b.sum_pool(source, windows)
        codes.append(random_rescale(b, pooled, divisor=counts.flat[0] if same else counts))
    elif kind == "rescale":
        codes.append(random_rescale(b, source))
    elif kind == "relu":
        sums.append(b.relu(source))
    else:
        combine(b, kind, codes, sums)


def combine(b, kind, codes, sums):
    among = sums if kind.endswith("sums") else codes
    first = pick(b, among)
    if kind.startswith("add"):
        shape = b.ops[first].shape
        others = [name for name in codes + sums if b.ops[name].shape == shape]
        codes.append(random_rescale(b, first, *(pick(b, others) for _ in range(2))))
        return
    same = [name for name in among if b.ops[name].shape[1:] == b.ops[first].shape[1:]]
    same = [name for name in same if not b.ops[name].grid.is_sums] if among is codes else same
    if among is codes:
        same = [name for name in same if b.ops[name].grid is b.ops[first].grid]
    among.append(b.concat(first, pick(b, same)))


def random_rescale(b, *inputs, divisor=1):
    bits, signed = pick(b, range(2, 9)), bool(b.rng.integers(2))
    zero_point = int(b.rng.integers(-1, 2)) if signed else int(b.rng.integers(2))
    spread = 2.0 ** (bits - 2)
    return b.rescale(
        *inputs, bits=bits, signed=signed, zero_point=zero_point, spread=spread, divisor=divisor
    )


def random_conv(b, source):
    channels, height, width = b.ops[source].shape
    groups = pick(b, [g for g in range(1, channels + 1) if channels % g == 0])
    stride, dilation = int(b.rng.integers(1, 3)), int(b.rng.integers(1, 3))
    kernel = tuple(int(k) for k in b.rng.integers(1, 4, 2))
    extent = [dilation * (k - 1) + 1 for k in kernel]
    # Enough on either side that one window fits, and at random more.
    before = b.rng.integers(0, 3, 2)
    missing = [max(0, e - size - p) for e, size, p in zip(extent, (height, width), before)]  # noqa: B905
    after = [int(m + b.rng.integers(0, 2)) for m in missing]
    return b.conv(
        source,
        groups * int(b.rng.integers(1, 4)),
        kernel,
        bits=pick(b, range(2, 9)),
        stride=stride,
        pads=(*map(int, before), *after),
        groups=groups,
        dilation=dilation,
        bias=bool(b.rng.integers(2)),
    )


def random_windows(b, size):
    if b.rng.integers(2):
        counts = [int(b.rng.integers(1, min(edge, 3) + 1)) for edge in size]
        spans = [
            tuple((i * edge // n, -(-(i + 1) * edge // n)) for i in range(n))
            for edge, n in zip(size, counts, strict=True)
        ]
        return Windows(*spans, tuple(size))
    kernel = int(b.rng.integers(1, min(size) + 1))
    return windows_of(
        size, kernel, int(b.rng.integers(1, 3)), int(b.rng.integers(0, kernel // 2 + 1))
    )
