"""What Bit Fusion's model refuses, and what its targets and options mean."""

import tracemalloc

import numpy as np
import pytest

from bitscout.core import Layer, LayerArrays, LayerGraph, QuantPolicy
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware import load_hardware
from bitscout.hardware.bitfusion.machine import Energies
from bitscout.hardware.bitfusion.sram import bank_of
from bitscout.hardware.reference_networks import reference_network

NO_SRAM = ",".join(
    f"{buffer}_{way}_nj_per_bit=0"
    for buffer in ("wbuf", "ibuf", "obuf")
    for way in ("read", "write")
)


def report_of(hardware, layer):
    """Return the report at 8 bits of a network in which `layer` does not read the image."""
    graph = LayerGraph((Layer("first", "linear", 1, 1), layer))
    return load_hardware(hardware).report(graph, QuantPolicy.uniform(graph.names, 8, 8))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"kernel": (1, 7)}, r"layer 'odd': its rule needs a square kernel, got 1x7\."),
        ({"stride": (1, 2)}, "'odd': its rule needs a square stride, got 1x2"),
        ({"output_size": (4, 5)}, "'odd': its rule needs a square output, got 4x5"),
        ({"kernel": (3, 3), "dilation": (2, 2)}, "no rule for the dilated kernel of layer 'odd'"),
    ],
)
def test_a_layer_that_is_no_square_convolution_is_refused(shape, message):
    with pytest.raises(UnsupportedError, match=message):
        report_of("bitfusion", Layer("odd", "conv", 8, 8, **shape))


@pytest.mark.parametrize(
    ("hardware", "layer", "message"),
    [
        (
            # 61 * 61 taps to the next 16, 32 columns, 8 bits.
            "bitfusion:wbuf_bytes=131072",
            Layer("wide", "conv", 1, 64, kernel=(61, 61)),
            "'wide': the weights .* 119296 bytes, and half of `wbuf_bytes` is 65536 bytes; make",
        ),
        (
            "bitfusion:ibuf_bytes=2048",
            Layer("wide", "conv", 3, 8, kernel=(33, 33)),
            r"the inputs of its smallest tile need 1089 bytes, and half of `ibuf_bytes` is 1024",
        ),
        (
            "bitfusion:obuf_bytes=4096,partial_sum_bits=1024",
            Layer("deep", "linear", 8, 8),
            r"partial sums of its smallest tile need 4096 bytes, and half of `obuf_bytes` is 2048",
        ),
        (
            "bitfusion:batch=1000000000000",
            Layer("huge", "linear", 4096, 4096),
            r"'huge': it is too large for 64-bit counters of bits; choose a smaller batch\.",
        ),
        (
            f"bitfusion:max_bits=4,{NO_SRAM}",
            Layer("fc", "linear", 8, 8),
            r"'first': its weights must have 1 to 4 bits, got 8\.",
        ),
    ],
)
def test_a_layer_that_does_not_fit_is_refused_with_what_it_needs(hardware, layer, message):
    with pytest.raises(UnsupportedError, match=message):
        report_of(hardware, layer)


def test_the_smallest_tile_that_fits_exactly_is_scheduled():
    # 1024 of 1024 bytes of inputs; one channel, so that there is one tile size.
    report = report_of("bitfusion:ibuf_bytes=2048", Layer("conv", "conv", 1, 8, kernel=(32, 32)))
    assert report.layers[1].costs["ibuf_write_bits"] == 8192


def test_arrays_without_names_are_refused_by_their_shape():
    layers = LayerArrays.from_columns(
        in_channels=[8, 8], out_channels=[8, 16], kernel_height=[1, 1], kernel_width=[1, 3]
    )
    bits = np.array([8, 8])
    with pytest.raises(UnsupportedError, match="the 1x3 convolution of 8 -> 16 channels in 1 gro"):
        load_hardware("bitfusion").costs(layers, bits, bits)


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range_are_refused(bits):
    layers = LayerArrays.from_columns(is_linear=1, in_channels=[8], out_channels=[8])
    hardware = load_hardware("bitfusion")
    with pytest.raises(UnsupportedError, match=f"its activations must have 1 to 8 .* got {bits}"):
        hardware.costs(layers, np.array([8]), np.array([bits]))
    with pytest.raises(UnsupportedError, match=f"no rule for {bits}-bit weights, as layer 'a' h"):
        hardware.check(["a"], layers, (bits, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rows=0", "`rows` of hardware 'bitfusion' must be above 0 fusion units, got 0"),
        ("columns=-8", "`columns` of hardware 'bitfusion' must be above 0 fusion units, got -8"),
        ("wbuf_bytes=0", "`wbuf_bytes` of hardware 'bitfusion' must be above 0 bytes"),
        ("frequency_hz=0", "`frequency_hz` of hardware 'bitfusion' must be above 0 Hz"),
        ("dram_nj_per_bit=-1", "`dram_nj_per_bit` of hardware 'bitfusion' must be at least 0"),
        ("ibuf_read_nj_per_bit=-1", "`ibuf_read_nj_per_bit` .* must be at least 0 nJ/bit, got -1"),
        ("batch=0", "`batch` of hardware 'bitfusion' must be at least 1, got 0"),
        ("min_bits=9", "`min_bits` of hardware 'bitfusion' must be at most `max_bits` = 8, got 9"),
        ("max_bits=4", r"max_bits\^2 / min_bits = 32 bits an access, got 4\^2 / 2"),
        ("depthwise=dens", "one of dense, block, ic1, per_channel, got 'dens'"),
        ("rowz=8", "has no option `rowz`. Did you mean `rows`?"),
        (
            "wbuf_bytes=65537",
            "makes 512 banks of 128.002 bytes; .* from 128 to 131072 bytes.* nearest 65536; or",
        ),
        ("ibuf_bytes=1024", r"`ibuf_bytes` = 1024 bytes makes 16 banks of 64 bytes;.* 2048 bytes"),
        ("obuf_bytes=12288", r"`obuf_bytes` = 12288 bytes makes 32 banks of 384 bytes"),
        (
            "rows=12",
            r"`wbuf_bytes` = 65536 bytes makes 384 banks of 170\.667 bytes.* nearest 4915",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_hardware(f"bitfusion:{options}")


def test_an_array_of_any_shape_works_with_energies_of_ones_own():
    given = {
        f"{buffer}_{way}_nj_per_bit": 1e-4
        for buffer in ("wbuf", "ibuf", "obuf")
        for way in ("read", "write")
    }
    hardware = load_hardware("bitfusion:rows=12,columns=14", wbuf_bytes=50000, **given)
    assert hardware.machine.energies.ibuf_write == 1e-4
    report = hardware.report(
        LayerGraph((Layer("fc", "linear", 24, 28),)), QuantPolicy.uniform(["fc"], 8, 8)
    )
    assert report.total["compute_cycles"] == 2 * 2
    # One energy given, the other from the table.
    mixed = load_hardware("bitfusion:obuf_read_nj_per_bit=0.5").machine.energies
    assert (mixed.obuf_read, mixed.obuf_write) == (0.5, 7.30840625e-5)


def test_energies_of_the_default_array_are_the_published_ones():
    assert load_hardware("bitfusion").machine.energies == Energies(
        core=0.235104,
        wbuf_read=2.136565625e-5,
        wbuf_write=2.891615625e-5,
        ibuf_read=5.9474375e-5,
        ibuf_write=1.137040625e-4,
        obuf_read=3.31553125e-5,
        obuf_write=7.30840625e-5,
        dram=15e-3,
    )


def test_shared_ports_cost_energy():
    exclusive, shared = (bank_of("x", 512, 1, shared_ports=ports) for ports in (0, 1))
    assert exclusive.read_nj_per_bit == 0.000947547 / 32
    assert shared.write_nj_per_bit == 0.00233869 / 32


@pytest.mark.parametrize(
    ("target", "shape", "buffers", "bits_per_cycle", "frequency_hz"),
    [
        ("bitfusion", (16, 32), (64, 32, 16), 192, 5e8),
        ("bitfusion-haq", (16, 32), (64, 32, 16), 192, 5e8),
        ("bitfusion-8x8", (8, 8), (256, 64, 16), 128, 5e8),
        ("bitfusion-stripes", (16, 32), (128, 128, 128), 4096, 9.8e8),
    ],
)
def test_targets_are_the_shipped_configurations(
    target, shape, buffers, bits_per_cycle, frequency_hz
):
    hardware = load_hardware(target)
    assert (hardware.rows, hardware.columns) == shape
    kib = 1024
    assert (hardware.wbuf_bytes, hardware.ibuf_bytes, hardware.obuf_bytes) == tuple(
        size * kib for size in buffers
    )
    assert hardware.dram_bits_per_cycle == bits_per_cycle
    assert hardware.frequency_hz == frequency_hz
    assert hardware.depthwise == ("dense" if target == "bitfusion-haq" else "ic1")
    assert hardware.batch == 1
    assert hardware.spec == target
    # 3 673 500 nW of 16 units at 500 MHz, whatever the clock of the target.
    core_nj = 3673500 * shape[0] * shape[1] / 16 / 500e6
    assert hardware.machine.energies.core == pytest.approx(core_nj, rel=1e-15)


def test_a_whole_table_takes_little_memory():
    layers = LayerArrays.of(reference_network("mobilenet_v2"))
    bits = np.array([(w, a) for w in range(2, 9) for a in range(2, 9)])[::4]
    table = LayerArrays(layers.table.repeat(len(bits), axis=0))
    w, a = np.tile(bits, (len(layers), 1)).T
    tracemalloc.start()
    load_hardware("bitfusion:batch=16,depthwise=dense").costs(table, w, a)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 689
    assert peak < 200e6
