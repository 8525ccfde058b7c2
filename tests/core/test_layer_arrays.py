"""Layers as columns: the same numbers as `Layer` gives, one at a time."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hardware.toys import layer_graphs

from bitscout.core import Layer, LayerArrays, LayerGraph, Node

CONV = Layer(
    "conv",
    "conv",
    6,
    8,
    kernel=(3, 5),
    stride=(2, 1),
    groups=2,
    input_size=(11, 12),
    output_size=(5, 12),
    dilation=(1, 2),
)
FC = Layer("fc", "linear", 8, 10, has_bias=False)

same = st.integers(0, 2**32 - 1)


@given(graph=layer_graphs())
def test_columns_are_what_the_layers_say(graph):
    arrays = LayerArrays.of(graph)
    assert arrays.shape == (len(graph),)
    assert arrays.macs.tolist() == [layer.macs for layer in graph]
    assert arrays.n_weights.tolist() == [layer.n_weights for layer in graph]
    assert arrays.n_biases.tolist() == [layer.n_biases for layer in graph]
    assert arrays.is_depthwise.tolist() == [layer.is_depthwise for layer in graph]
    assert arrays.is_linear.tolist() == [layer.kind == "linear" for layer in graph]
    assert arrays.has_bias.tolist() == [layer.has_bias for layer in graph]
    pairs = {"kernel": "kernel", "stride": "stride", "dilation": "dilation"}
    for attribute, column in {**pairs, "input_size": "input", "output_size": "output"}.items():
        expected = [getattr(layer, attribute) for layer in graph]
        found = (getattr(arrays, f"{column}_height"), getattr(arrays, f"{column}_width"))
        assert list(zip(*(values.tolist() for values in found), strict=True)) == expected
    for attribute in ("in_channels", "out_channels", "groups"):
        assert getattr(arrays, attribute).tolist() == [
            getattr(layer, attribute) for layer in graph
        ]


def test_columns_have_the_right_types():
    arrays = LayerArrays.of([CONV, FC])
    assert arrays.macs.dtype == np.int64
    assert arrays.has_bias.dtype == np.bool_
    assert LayerArrays.of([]).macs.dtype == np.int64


# --- what reads the network's input


def test_the_nodes_say_which_layers_read_the_input():
    layers = (replace(FC, name="a"), replace(FC, name="b"), replace(FC, name="c"))
    nodes = (
        Node("image", "input", (), (8,)),
        Node("a", "linear", ("image",), (8,)),
        Node("b", "linear", ("a",), (8,)),
        Node("c", "linear", ("image",), (8,)),
    )
    assert LayerArrays.of(LayerGraph(layers, nodes)).reads_input.tolist() == [True, False, True]


def test_without_nodes_it_is_the_first_layer_of_a_graph_and_none_of_a_list():
    assert LayerArrays.of(LayerGraph((CONV, FC))).reads_input.tolist() == [True, False]
    assert LayerArrays.of([CONV, FC]).reads_input.tolist() == [False, False]


# --- many at once


def test_from_columns_broadcasts_and_fills_with_ones():
    arrays = LayerArrays.from_columns(in_channels=[[1], [2]], out_channels=[3, 4, 5])
    assert arrays.shape == (2, 3)
    assert len(arrays) == 2
    assert arrays.macs.tolist() == [[3, 4, 5], [6, 8, 10]]
    assert arrays[1].macs.tolist() == [6, 8, 10]
    assert arrays.flat().macs.tolist() == [3, 4, 5, 6, 8, 10]
    assert not arrays.has_bias.any()
    assert not arrays.is_linear.any()


def test_from_columns_of_a_layer_is_the_layer():
    columns = LayerArrays.from_columns(
        in_channels=6,
        out_channels=8,
        kernel_height=3,
        kernel_width=5,
        stride_height=2,
        groups=2,
        input_height=11,
        input_width=12,
        output_height=5,
        output_width=12,
        dilation_width=2,
        has_bias=1,
    )
    assert columns.shape == ()
    assert np.array_equal(columns.table, LayerArrays.of([CONV]).table[0])


def test_a_column_that_does_not_exist_is_refused():
    with pytest.raises(KeyError, match="channels"):
        LayerArrays.from_columns(channels=3)


# --- equality


@given(graph=layer_graphs(), seed=same)
def test_different_layers_are_found_and_where_each_went(graph, seed):
    arrays = LayerArrays.of(graph)
    if len(graph):
        arrays = arrays[np.random.default_rng(seed).integers(0, len(graph), 20)]
    distinct, inverse = arrays.unique()
    assert np.array_equal(distinct[inverse].table, arrays.table)
    assert len(distinct) == len({row.tobytes() for row in arrays.table})


def test_layers_whose_keys_collide_are_told_apart(monkeypatch):
    monkeypatch.setattr(LayerArrays, "keys", lambda self: np.zeros(self.shape, dtype=np.int64))
    arrays = LayerArrays.of([CONV, FC, CONV])
    distinct, inverse = arrays.unique()
    assert len(distinct) == 2
    assert np.array_equal(distinct[inverse].table, arrays.table)


def test_every_column_changes_the_key():
    whole = LayerArrays.of([CONV])
    changed = np.repeat(whole.table, whole.table.shape[1], axis=0)
    changed += np.eye(len(changed), dtype=np.int64)
    keys = np.append(LayerArrays(changed).keys(), whole.keys())
    assert len(set(keys.tolist())) == len(changed) + 1


def test_keys_follow_the_shape_and_are_the_same_everywhere():
    arrays = LayerArrays.of([CONV, FC, CONV, FC])
    keys = arrays.keys()
    assert (
        LayerArrays(arrays.table.reshape(2, 2, -1)).keys().tolist() == keys.reshape(2, 2).tolist()
    )
    assert keys[0] == keys[2] != keys[1]


def test_keys_of_many_similar_layers_do_not_collide():
    sizes = np.arange(1, 201)
    arrays = LayerArrays.from_columns(in_channels=sizes[:, None], out_channels=sizes[None, :])
    assert len(np.unique(arrays.keys())) == 200 * 200
