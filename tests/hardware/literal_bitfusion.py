"""Bit Fusion written down once more, loop by loop in Python integers: slow, and plainly the rule.

It shares no code with the package: every tile, every one of the 60 orders, one tensor at a time.
"""

from itertools import permutations
from typing import NamedTuple

TOUCHES = {
    "batch": ("inputs", "outputs"),
    "output": ("inputs", "outputs"),
    "in_channels": ("inputs", "weights"),
    "out_channels": ("weights", "outputs"),
}
ORDERS = sorted(set(permutations(["batch", "output", "output", "in_channels", "out_channels"])))
PLACES = ("wbuf_read", "wbuf_write", "ibuf_read", "ibuf_write", "obuf_read", "obuf_write")


class Geometry(NamedTuple):
    kernel: int
    output: int
    stride: int
    in_channels: int
    out_channels: int
    is_im2col: bool
    weight_bits: int
    act_bits: int


class Accelerator(NamedTuple):
    """The defaults are those of the original's bf_e_conf.ini; energies in nJ."""

    rows: int = 16
    columns: int = 32
    dram_bits_per_cycle: int = 192
    wbuf_bytes: int = 65536
    ibuf_bytes: int = 32768
    obuf_bytes: int = 16384
    core: float = 0.235104
    wbuf_read: float = 2.136565625e-5
    wbuf_write: float = 2.891615625e-5
    ibuf_read: float = 5.9474375e-5
    ibuf_write: float = 1.137040625e-4
    obuf_read: float = 3.31553125e-5
    obuf_write: float = 7.30840625e-5
    dram: float = 15e-3


def up(numerator, denominator):
    return -(-numerator // denominator)


def sizes(total, smallest=1):
    steps = [smallest * 2**i for i in range(total.bit_length() + 1)]
    return sorted({min(step, total) for step in steps})


def cheapest(layer, batch, machine):
    """Return (cycles, energy in nJ, counters) of the layer, None where no tile fits."""
    first_columns = 1 if layer.is_im2col else machine.columns
    best = None
    for b in sizes(batch):
        for o in sizes(layer.output):
            for ic in sizes(layer.in_channels):
                for oc in sizes(layer.out_channels, first_columns):
                    found = of_tile(layer, batch, machine, (b, o, ic, oc))
                    if found and (best is None or found[:2] < best[:2]):
                        best = found
    return best


def of_tile(layer, batch, machine, tile):
    K, O, S, IC, OC, im2col, w, a = layer  # noqa: E741  # the names of the formulas
    b, o, ic, oc = tile
    N, M = machine.rows, machine.columns
    fused = N * (8 // max(w, 2)) * (8 // max(a, 2))
    footprint = {
        "weights": up(K * K * ic, fused) * fused * oc * w,
        "inputs": (o * o * K * K if im2col else (K + (o - 1) * S) ** 2) * ic * b * a,
        "outputs": o * o * up(oc, M) * M * b * 32,
    }
    capacity = {
        "weights": machine.wbuf_bytes * 4,
        "inputs": machine.ibuf_bytes * 4,
        "outputs": machine.obuf_bytes * 4,
    }
    if any(footprint[tensor] > capacity[tensor] for tensor in footprint):
        return None
    trips = {
        "batch": up(batch, b),
        "output": up(O, o),
        "in_channels": up(IC, ic),
        "out_channels": up(OC, oc),
    }
    n_tiles = trips["batch"] * trips["output"] ** 2 * trips["in_channels"] * trips["out_channels"]
    steps = up(K * K * ic, fused) if im2col else K * K * up(ic, fused)
    compute = n_tiles * b * o * o * up(oc, M) * steps
    reads = reads_of_tile(layer, machine, tile, steps * fused)
    best = None
    for order in ORDERS:
        moved, resident = walk(order, footprint, capacity, trips)
        dram_read, dram_write = sum(moved.values()), moved["outputs"]
        fill, drain = sum(resident.values()), resident["outputs"]
        middle = up(dram_read + dram_write - fill - drain, machine.dram_bits_per_cycle)
        latency = up(fill, machine.dram_bits_per_cycle) + up(drain, machine.dram_bits_per_cycle)
        stalls = max(0, middle - compute) + latency
        obuf = n_tiles * reads[2] + moved["outputs"]
        counters = {
            "wbuf_read": n_tiles * reads[0],
            "wbuf_write": moved["weights"],
            "ibuf_read": n_tiles * reads[1],
            "ibuf_write": moved["inputs"],
            "obuf_read": obuf,
            "obuf_write": obuf,
        }
        energy = compute * machine.core
        for place in PLACES:
            energy += counters[place] * getattr(machine, place)
        energy += dram_read * machine.dram
        energy += dram_write * machine.dram
        counters |= {"dram_read": dram_read, "dram_write": dram_write}
        found = (compute + stalls, energy, {"compute": compute, "stalls": stalls, **counters})
        if best is None or found[:2] < best[:2]:
            best = found
    return best


def walk(order, footprint, capacity, trips):
    """Return what each tensor moves and what stays resident, for an order from the outside in."""
    moved, resident = {}, {}
    for tensor, size in footprint.items():
        stays = True
        resident[tensor] = size
        for loop in reversed(order):
            if not stays:
                size *= trips[loop]
            elif tensor in TOUCHES[loop]:
                size *= trips[loop]
                if size > capacity[tensor]:
                    stays = False
                else:
                    resident[tensor] = size
        moved[tensor] = size
    return moved, resident


def reads_of_tile(layer, machine, tile, rows):
    K, *_, w, a = layer
    b, o, ic, oc = tile
    columns, positions = up(oc, machine.columns) * machine.columns, b * o * o
    estimates = [
        rows * positions * (a + columns * (w + 32)),
        columns * positions * (32 + rows * (a + w)),
        rows * columns * (w + positions * (a + 32)),
    ]
    macs = K * K * ic * positions
    return [
        (macs * oc * w, macs * a, macs * oc * 32),
        (macs * oc * w, macs * oc * a, oc * positions * 32),
        (K * K * ic * oc * w, macs * oc * a, macs * oc * 32),
    ][estimates.index(min(estimates))]
