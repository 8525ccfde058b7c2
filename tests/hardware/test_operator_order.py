# SPDX-License-Identifier: Apache-2.0
"""Orders of operators: equal to the published recurrence and to trying all orders."""

import time
from dataclasses import replace
from functools import cache
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.errors import UnsupportedError
from bitscout.export.memory_plan import MemoryStep, plan_memory
from bitscout.hardware.operator_graph import OperatorGraph, memory_profile
from bitscout.hardware.operator_order import best_order


def network(n_inputs, reads, accumulates=()):
    """Operators that read `reads`; those in `accumulates` may overwrite any operand."""
    reads = ((),) * n_inputs + tuple(reads)
    names = tuple(f"x{i}" if i < n_inputs else f"op{i}" for i in range(len(reads)))
    replaces = tuple(operands if i in accumulates else () for i, operands in enumerate(reads))
    return OperatorGraph(names, reads, replaces, n_inputs)


@st.composite
def networks(draw, max_operators=8):
    """Any graph and sizes that often repeat, with inputs in memory and elsewhere (0 bytes)."""
    n_inputs = draw(st.integers(1, 2))
    n = n_inputs + draw(st.integers(1, max_operators))
    reads = [
        tuple(sorted(draw(st.sets(st.integers(0, i - 1), min_size=1, max_size=3))))
        for i in range(n_inputs, n)
    ]
    replaces = [draw(st.sampled_from([(), operands, operands[:1]])) for operands in reads]
    inputs = st.sampled_from([0, 0, 4, 9])
    sizes = [draw(inputs if i < n_inputs else st.sampled_from([1, 4, 4, 9])) for i in range(n)]
    graph = replace(network(n_inputs, reads), replaces=((),) * n_inputs + tuple(replaces))
    return graph, tuple(sizes)


@st.composite
def block_networks(draw):
    """Blocks of branches that join, with shortcuts from anywhere before, and an input unread."""
    reads, ends = [], [0]
    size = st.sampled_from([1, 4, 9, 13])
    for _ in range(draw(st.integers(1, 3))):
        source, joined = ends[-1], []
        for _ in range(draw(st.integers(1, 3))):
            last = source
            for _ in range(draw(st.integers(1, 2))):
                reads.append((last,))
                last = 1 + len(reads)
            joined.append(last)
        shortcut = draw(st.sampled_from(ends))
        reads.append(tuple(sorted({*joined, shortcut})))
        ends.append(1 + len(reads))
    sizes = [draw(size), draw(st.sampled_from([0, 5])), *(draw(size) for _ in reads)]
    return network(2, reads, draw(st.sampled_from([set(), set(ends)]))), tuple(sizes)


def recurrence(graph, sizes):
    """The peak by the recurrence of uNAS as it is written, backwards from the results."""

    @cache
    def history(t):
        return frozenset().union(*(history(u) | {u} for u in graph.reads[t]))

    def size(tensors):
        return sum(sizes[t] for t in tensors)

    @cache
    def mem(live):
        produced = [t for t in live if t >= graph.n_inputs]
        if not produced:
            return size(live)
        choices = []
        for t in produced:
            others = live - {t}
            if any(t in history(u) for u in others):
                continue
            before = others | set(graph.reads[t])
            # An operand that something later reads is among the others.
            is_in_place = any(sizes[u] == sizes[t] and u not in others for u in graph.replaces[t])
            step = size(before) if is_in_place else size(before | {t})
            choices.append(max(mem(before), step))
        return min(choices)

    read = {t for reads in graph.reads for t in reads}
    return mem(frozenset(range(len(sizes))) - read)


def all_orders(graph):
    """Every order in which operators come after what they read."""
    operators = range(graph.n_inputs, len(graph.names))
    for order in permutations(operators):
        place = {operator: position for position, operator in enumerate(order)}
        if all(place.get(t, -1) < place[op] for op in operators for t in graph.reads[op]):
            yield order


@given(networks())
def test_the_peak_is_that_of_the_recurrence(case):
    graph, sizes = case
    assert best_order(graph, sizes).peak_bytes == recurrence(graph, sizes)


@given(block_networks())
def test_the_peak_of_blocks_with_shortcuts_is_that_of_the_recurrence(case):
    graph, sizes = case
    best = best_order(graph, sizes)
    assert best.peak_bytes == max(best.live_bytes) == recurrence(graph, sizes)


@given(networks(max_operators=6))
def test_the_peak_is_the_smallest_of_all_orders(case):
    graph, sizes = case
    peaks = [memory_profile(graph, sizes, order).peak_bytes for order in all_orders(graph)]
    assert best_order(graph, sizes).peak_bytes == min(peaks)


@given(networks())
def test_the_order_can_be_run_and_needs_what_is_said(case):
    graph, sizes = case
    best = best_order(graph, sizes)
    assert sorted(best.order) == list(range(graph.n_inputs, len(sizes)))
    ran = set(range(graph.n_inputs))
    for operator in best.order:
        assert ran.issuperset(graph.reads[operator])
        ran.add(operator)
    assert memory_profile(graph, sizes, best.order) == best
    # An operand's place is taken by at most one result, so names and bytes agree.
    for name, live_bytes in zip(best.names, best.live_bytes, strict=True):
        assert sum(best.live_tensors(name).values()) == live_bytes
    assert best.peak_bytes <= memory_profile(graph, sizes).peak_bytes


@given(networks())
def test_bytes_of_an_order_are_those_of_the_planner_of_exported_code(case):
    graph, sizes = case
    # The planner aligns to four bytes and has no inputs of its own: a first step writes them.
    sizes = [4 * size for size in sizes]
    names = graph.names
    steps = [MemoryStep("start", (), {names[t]: sizes[t] for t in range(graph.n_inputs)})]
    for operator in range(graph.n_inputs, len(names)):
        reads = tuple(names[t] for t in graph.reads[operator])
        writes = {names[operator]: sizes[operator]}
        in_place = tuple(names[t] for t in graph.replaces[operator])
        steps.append(MemoryStep(names[operator], reads, writes, in_place=in_place))
    keep = {name for name, count in zip(names, graph.n_readers, strict=True) if not count}
    plan = plan_memory(steps, keep=keep)
    profile = memory_profile(graph, sizes)
    assert plan.peak_bytes == profile.peak_bytes
    assert plan.arena_bytes >= profile.peak_bytes


def test_a_chain_needs_its_largest_pair():
    graph = network(1, [(0,), (1,), (2,)])
    profile = best_order(graph, (5, 7, 4, 6))
    assert profile.live_bytes == (12, 11, 10)
    assert (profile.peak_bytes, profile.peak_operator) == (12, "op1")
    assert profile.live_tensors("op2") == {"op1": 7, "op2": 4}


def test_an_addition_takes_the_place_of_an_operand_nobody_needs():
    # x -> a -> b, b + a: `a` dies in the addition, `x` would if it were read by nobody else.
    graph = network(1, [(0,), (1,), (1, 2)], accumulates={3})
    assert best_order(graph, (4, 4, 4, 4)).live_bytes == (8, 8, 8)
    assert best_order(graph, (4, 4, 4, 3)).live_bytes == (8, 8, 11)
    assert "op3" not in best_order(graph, (4, 4, 4, 4)).live_tensors("op3")
    # Read once more, an operand keeps its place until the addition comes last.
    twice = network(1, [(0,), (1,), (1, 2), (1, 2)], accumulates={3})
    assert memory_profile(twice, (4,) * 5).live_bytes == (8, 8, 12, 16)
    assert best_order(twice, (4,) * 5).live_bytes == (8, 8, 12, 12)


def test_the_branch_that_shrinks_more_runs_first():
    # Two branches: one swells to 10 and ends in 1, the other swells to 6 and ends in 5.
    graph = network(1, [(0,), (1,), (0,), (3,), (2, 4)])
    sizes = (0, 6, 5, 10, 1, 1)
    assert memory_profile(graph, sizes).peak_bytes == 5 + 10 + 1
    profile = best_order(graph, sizes)
    assert profile.names == ("op3", "op4", "op1", "op2", "op5")
    assert profile.peak_bytes == 1 + 6 + 5


def test_a_network_without_operators_needs_its_inputs():
    assert best_order(network(2, []), (3, 4)).peak_bytes == 7


def test_operators_with_one_place_separate_segments():
    diamond = [(0,), (1,), (1,), (2, 3)]
    graph = network(1, [*diamond, (4,), (5,), (5,), (6, 7)])
    assert graph.segments == (range(2, 4), range(6, 8))
    # A shortcut over a chain leaves one order; two results leave their order open.
    assert network(1, [(0,), (1,), (1, 2)]).segments == ()
    assert network(1, [(0,), (1,), (1,)]).segments == (range(2, 4),)


def test_a_thousand_layers_and_hundreds_of_blocks_take_little_time():
    chain = network(1, [(i,) for i in range(2000)])
    sizes = [1 + i % 17 for i in range(2001)]
    blocks = [(0,)]
    for i in range(1, 1000, 4):
        # The given order is not the best one: the small branch comes last.
        blocks += [(i,), (i,), (i + 2,), (i + 1, i + 3)]
    wide = network(1, blocks)
    wide_sizes = [2, 2] + [5, 9, 1, 2] * 250
    start = time.process_time()
    assert best_order(chain, sizes).peak_bytes == 33
    profile = best_order(wide, wide_sizes)
    assert time.process_time() - start < 1
    assert memory_profile(wide, wide_sizes).peak_bytes == 2 + 5 + 9
    assert profile.peak_bytes == 2 + 9 + 1


def test_a_graph_too_wide_is_refused_with_what_to_do():
    # Forty branches that swell by different amounts; their ends are needed together.
    branches = [reads for i in range(40) for reads in ((0,), (1 + 2 * i,))]
    graph = network(1, [*branches, tuple(range(2, 81, 2))])
    sizes = [50, *(s for i in range(40) for s in (100 + (i * 37) % 41, 1 + (i * 29) % 43)), 1]
    with pytest.raises(
        UnsupportedError, match=r"of the 80 operators from 'op1' to 'op80' .*given"
    ):
        best_order(graph, sizes, max_states=2000)
