# SPDX-License-Identifier: Apache-2.0
"""Table I of BOMP-NAS: counts, choices, canonical points, strides and bits."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.errors import ConfigError
from bitscout.space import BompSpace

CIFAR10 = BompSpace()
SPACES = {
    "cifar10": CIFAR10,
    "cifar10, divisor 1": BompSpace(channel_divisor=1),
    "cifar100": BompSpace(widths="cifar100", n_classes=100),
    "digits": BompSpace(input_shape=(1, 8, 8)),
    "8 bits only": BompSpace(bits=(8,)),
}
# Two blocks' worth of everything: small enough to look at every point.
TINY = BompSpace(
    widths=(0.05, 0.3),
    bits=(8,),
    kernels=(3,),
    expansions=(1,),
    repetitions=(0, 1),
    filters=(128,),
)

every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def points(space):
    return st.tuples(*[st.integers(0, len(choice.values) - 1) for choice in space.choices]).map(
        lambda row: np.array(row)
    )


def every_point(space):
    lengths = [len(choice.values) for choice in space.choices]
    return np.array(list(product(*map(range, lengths))))


def values_with(space=CIFAR10, **changes):
    """The seed with some values changed; ``block2_kernel=5`` for ``block2.kernel``."""
    return space.seed_values() | {key.replace("_", "."): new for key, new in changes.items()}


# --- counts


@pytest.mark.parametrize("space", [SPACES["cifar10"], SPACES["cifar100"]], ids=["10", "100"])
def test_counts_are_those_of_table_one(space):
    summary = space.describe()
    assert summary.n_dimensions == 49
    assert summary.n_bit_variables == 23
    assert summary.n_architectures == 30 * 1080**5 * 180 * 5
    assert summary.n_policies == 5**23
    # An absent block has one layout, whatever its kernel, width and expansion.
    assert summary.n_layouts == 30 * (6 * 5 * 6 * 5 + 1) ** 5 * 180 * 5
    document = summary.to_json()
    assert document["log10_architectures"] == 19.598
    assert document["log10_policies"] == 16.076
    assert document["log10_size"] == 35.675
    assert f"{summary.n_layouts:.3e}" == "1.603e+19"


def test_widths_left_after_rounding_to_multiples_of_eight():
    # Spec: distinct channels per block 1, 1, 2, 3, 4, 4, 5 of five widths.
    graphs = [
        CIFAR10.architecture(values_with(**{f"block{p}_width": w for p in range(1, 8)}))
        for w in (0.01, 0.05, 0.1, 0.2, 0.3)
    ]
    channels = np.array([[block.out_channels for block in graph.blocks] for graph in graphs])
    assert [len(set(column)) for column in channels.T] == [1, 1, 2, 3, 4, 4, 5]


def test_distinct_networks_of_a_tiny_space_by_looking_at_all():
    keys = {TINY.architecture_key(TINY.decode(row)) for row in every_point(TINY)}
    assert TINY.describe().n_networks == len(keys)
    assert len({tuple(row) for row in TINY.canonical_indices(every_point(TINY))}) == len(keys)


def test_layouts_of_a_tiny_space_by_looking_at_all():
    # With a divisor of 1 all widths differ, so that layouts are networks.
    space = BompSpace(
        widths=(0.1, 0.3),
        channel_divisor=1,
        bits=(8,),
        kernels=(3,),
        expansions=(1,),
        repetitions=(0, 1),
        filters=(128,),
    )
    keys = {space.architecture_key(space.decode(row)) for row in every_point(space)}
    assert space.describe().n_layouts == space.describe().n_networks == len(keys)


def test_one_valued_lists_are_no_dimensions():
    summary = SPACES["8 bits only"].describe()
    assert (summary.n_dimensions, summary.n_bit_variables, summary.n_policies) == (26, 0, 1)
    policy = SPACES["8 bits only"].policy(SPACES["8 bits only"].seed_values())
    assert {bits.weight_bits for bits in policy.values()} == {8}


def test_choices_are_named_as_announced():
    names = [choice.name for choice in CIFAR10.choices]
    assert names[:6] == [
        *("block1.kernel", "block1.width"),
        *("block2.kernel", "block2.width", "block2.expansion", "block2.repetitions"),
    ]
    assert names[22:30] == [
        *("block7.kernel", "block7.width", "block7.expansion", "conv2.filters", "stem.bits"),
        *("block1.depthwise.bits", "block1.project.bits", "block2.expand.bits"),
    ]
    assert names[-2:] == ["conv2.bits", "classifier.bits"]


# --- the seed


@pytest.mark.parametrize(
    ("name", "width", "weights_kb", "size_kb", "mega_macs"),
    [("cifar10", 0.1, 91.6, 106.2, 20.4), ("cifar100", 0.75, 1456.8, 1510.5, 365.9)],
)
def test_seed_is_the_eight_bit_mobilenet_of_the_specification(
    name, width, weights_kb, size_kb, mega_macs
):
    space = SPACES[name]
    seed, indices = space.seed_values(), space.seed_indices()[None]
    assert seed["block1.width"] == width
    assert [seed[f"block{p}.repetitions"] for p in range(2, 7)] == [2, 3, 4, 3, 3]
    assert seed["conv2.filters"] == 1280
    assert round(space.weight_bits(indices)[0] / 8000, 1) == weights_kb
    assert round(space.size_bits(indices)[0] / 8000, 1) == size_kb
    assert round(space.layers(seed).macs / 1e6, 1) == mega_macs


def test_random_candidates_have_the_median_size_of_the_specification():
    # About 48 kB of weights, 1st percentile about 10 kB; with 10,000 draws the median is known
    # to about 1 %, the spec gives two digits.
    kb = CIFAR10.weight_bits(CIFAR10.sample_indices(np.random.default_rng(0), 10_000)) / 8000
    assert np.median(kb) == pytest.approx(48, rel=0.05)
    assert np.quantile(kb, 0.01) == pytest.approx(10, rel=0.1)


def test_smallest_network_of_cifar10_by_the_specification():
    # 1.39 kB of weights, 2.13 kB with biases: everything at its least.
    least = dict.fromkeys(("bits", "width", "kernel", "expansion", "repetitions", "filters"), 0)
    indices = np.array([[least[choice.name.split(".")[-1]] for choice in CIFAR10.choices]])
    assert round(CIFAR10.weight_bits(indices)[0] / 8000, 2) == 1.39
    assert round(CIFAR10.size_bits(indices)[0] / 8000, 2) == 2.13


# --- strides


@pytest.mark.parametrize(
    ("absent", "strides"),
    [
        ((), {5: 2, 7: 2}),
        ((5,), {6: 2, 7: 2}),
        ((6,), {5: 2, 7: 2}),
        ((5, 6), {7: 4}),
        ((2, 3, 4), {5: 2, 7: 2}),
        ((2, 3, 4, 5, 6), {7: 4}),
    ],
)
def test_resolution_is_halved_in_the_next_block_after_four_and_after_six(absent, strides):
    values = values_with(**{f"block{p}_repetitions": 0 for p in absent})
    spec = CIFAR10.architecture(values)
    assert {b.position: b.stride for b in spec.blocks if b.stride != 1} == strides
    layers = CIFAR10.layers(values)
    strided = {layer.name: layer.stride[0] for layer in layers if layer.stride != (1, 1)}
    assert strided == {f"block{p}.0.depthwise.conv": stride for p, stride in strides.items()}
    assert layers["conv2.conv"].input_size == (8, 8)


def test_a_block_of_expansion_one_keeps_its_expansion_convolution_except_the_first():
    names = CIFAR10.layers(values_with(block2_expansion=1)).names
    assert "block2.0.expand.conv" in names
    assert "block1.0.expand.conv" not in names


def test_images_smaller_than_the_reductions_keep_a_pixel():
    space = BompSpace(input_shape=(1, 1, 3))
    layers = space.layers(values_with(space, block5_repetitions=0, block6_repetitions=0))
    assert layers["conv2.conv"].input_size == (1, 1)


# --- policy


def test_repetitions_share_the_bits_of_their_block():
    values = values_with(
        **{"stem_bits": 4, "block3.expand_bits": 5, "block3.depthwise_bits": 6, "conv2_bits": 7}
    )
    policy = BompSpace(act_bits=6).policy(values)
    assert {name: bits.weight_bits for name, bits in policy.items() if bits.weight_bits != 8} == {
        "stem.conv": 4,
        **{f"block3.{r}.expand.conv": 5 for r in range(3)},
        **{f"block3.{r}.depthwise.conv": 6 for r in range(3)},
        "conv2.conv": 7,
    }
    assert {bits.act_bits for bits in policy.values()} == {6}


@every_space
def test_policy_covers_the_layers_of_random_candidates(space):
    rng = np.random.default_rng(1)
    for _ in range(5):
        values = space.sample(rng)
        space.policy(values).check_covers(space.layers(values).names)


# --- canonical points


@every_space
@given(data=st.data())
def test_canonical_changes_neither_network_nor_policy_and_is_idempotent(space, data):
    row = data.draw(points(space))
    canonical = space.canonical_indices(row[None])
    assert (space.canonical_indices(canonical) == canonical).all()
    before, after = space.decode(row), space.decode(canonical[0])
    assert space.canonical(before) == after
    assert space.architecture_key(before) == space.architecture_key(after)
    assert space.layers(before) == space.layers(after)
    assert space.policy(before) == space.policy(after)
    assert space.size_bits(row[None]) == space.size_bits(canonical)


@pytest.mark.parametrize("block", [2, 3, 4, 5, 6])
def test_an_absent_block_has_one_canonical_form(block):
    absent = values_with(**{f"block{block}_repetitions": 0})
    choices = [
        choice
        for choice in CIFAR10.choices
        if choice.name.startswith(f"block{block}.") and not choice.name.endswith("repetitions")
    ]
    assert len(choices) == 6
    expected = CIFAR10.candidate(absent).digest
    for choice in choices:
        for value in choice.values:
            assert CIFAR10.candidate(absent | {choice.name: value}).digest == expected


def test_canonical_keeps_every_choice_of_a_network_with_all_its_blocks():
    # With a divisor of 1 the widths of CIFAR-100 all differ.
    space = BompSpace(widths="cifar100", channel_divisor=1, repetitions=(1, 2, 3))
    rows = np.random.default_rng(2).integers(
        [len(choice.values) for choice in space.choices], size=(200, len(space.choices))
    )
    assert (space.canonical_indices(rows) == rows).all()


def test_a_width_that_rounds_to_the_same_channels_is_the_same_network():
    # 24 * 0.3 = 7.2 -> 8 like all smaller ones; 160 * 0.01 and 160 * 0.05 -> 8, 160 * 0.1 -> 16.
    assert CIFAR10.canonical(values_with(block2_width=0.3))["block2.width"] == 0.1
    assert CIFAR10.canonical(values_with(block6_width=0.05))["block6.width"] == 0.01
    assert CIFAR10.canonical(values_with(block6_width=0.2))["block6.width"] == 0.2
    # Block 1 has 8 channels either way, but its width also gives the stem 16 instead of 8.
    assert CIFAR10.canonical(values_with(block1_width=0.3))["block1.width"] == 0.3


@every_space
def test_seed_is_canonical(space):
    assert space.canonical(space.seed_values()) == space.seed_values()


# --- input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": "cifar11"}, "`widths` must be one of cifar10, cifar100 or a list"),
        ({"widths": ()}, "`widths` is empty: the space has no network"),
        ({"widths": (0.0, 0.1)}, r"`widths` must be finite and > 0, got 0\.0"),
        ({"widths": (-0.1,)}, r"`widths` must be finite and > 0, got -0\.1"),
        ({"widths": (float("nan"),)}, "`widths` must be finite and > 0, got nan"),
        ({"widths": ("wide",)}, "`widths` must be numbers > 0, got 'wide'"),
        ({"widths": (0.2, 0.1)}, r"`block1\.width` must list its values in increasing order"),
        ({"bits": (1, 2)}, r"`bits` must be in \[2, 8\], got 1\."),
        ({"bits": (8, 9)}, r"`bits` must be in \[2, 8\], got 9\."),
        ({"bits": ()}, "`bits` is empty"),
        ({"bits": 8}, "`bits` must be a list, got 8"),
        ({"bits": (4, 4)}, r"lists \[4\] more than once"),
        ({"bits": (4.5,)}, r"`bits` must be whole numbers in \[2, 8\], got 4\.5"),
        ({"act_bits": 9}, r"`act_bits` must be in \[2, 8\], got 9"),
        ({"kernels": (0, 3)}, "`kernels` must be >= 1, got 0"),
        ({"expansions": (0,)}, "`expansions` must be >= 1, got 0"),
        ({"repetitions": (-1, 1)}, "`repetitions` must be >= 0, got -1"),
        ({"repetitions": (0,)}, "`repetitions` must hold a number >= 1"),
        ({"filters": (0, 8)}, "`filters` must be >= 1, got 0"),
        ({"input_shape": (3, 32)}, r"`input_shape` must be \(channels, height, width\)"),
        ({"input_shape": (3, 0, 32)}, "`input_shape` must be >= 1, got 0"),
        ({"n_classes": 1}, "`n_classes` must be >= 2, got 1"),
        ({"channel_divisor": 0}, "`channel_divisor` must be >= 1, got 0"),
    ],
)
def test_an_impossible_space_is_rejected_with_a_useful_message(arguments, message):
    with pytest.raises(ConfigError, match=message):
        BompSpace(**arguments)


def test_a_space_without_a_choice_is_rejected():
    with pytest.raises(ConfigError, match="nothing is left to search"):
        BompSpace((0.1,), (3, 8, 8), 10, 8, (8,), 8, (3,), (6,), (1,), (128,))


def test_lists_of_a_configuration_file_are_as_good_as_tuples():
    assert BompSpace(widths=[0.1, 0.2], bits=[4, 8]) == BompSpace(widths=(0.1, 0.2), bits=(4, 8))


# --- explain


@every_space
def test_explain_names_every_choice_and_every_layer(space):
    rows = space.explain_layers()
    allowed = {choice.name: choice.values for choice in space.choices}
    named = {name: values for row in rows for name, values in row.choices.items()}
    assert named == allowed
    patterns = {row.name for row in rows}
    for name in space.layers(space.seed_values()).names:
        parts = name.split(".")
        assert name in patterns or ".".join([parts[0], "*", *parts[2:]]) in patterns


def test_explain_says_what_is_searched_and_what_is_fixed():
    rows = {row.name: row.to_json() for row in CIFAR10.explain_layers()}
    assert len(rows) == 23
    depthwise = rows["block4.*.depthwise.conv"]
    assert depthwise["state"] == "searched"
    assert depthwise["choices"]["block4.kernel"] == [2, 3, 4, 5, 6, 7]
    assert depthwise["choices"]["block4.depthwise.bits"] == [4, 5, 6, 7, 8]
    assert "absent where block4.repetitions is 0" in depthwise["reason"]
    assert rows["classifier"]["kind"] == "linear"
    assert rows["stem.conv"]["fixed"] == {"kernel": 3, "stride": 1, "act_bits": 8}
    fixed = BompSpace(bits=(8,), filters=(128,)).explain_layers()[-1]
    assert (fixed.state, fixed.choices) == ("fixed", {})
    assert fixed.fixed == {"conv2.filters": 128, "classifier.bits": 8, "act_bits": 8}
