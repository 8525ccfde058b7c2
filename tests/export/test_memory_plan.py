"""Arrangements in memory: nothing live together may overlap, chains reach the bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.export.graphs import relu_net, residual_net, tiny_net
from tests.export.random_graphs import random_net

from bitscout.export.c.program import Program
from bitscout.export.memory_plan import MemoryStep, plan_memory


def random_steps(seed, *, n_steps=12, is_chain=False):
    rng = np.random.default_rng(seed)
    steps, tensors = [], []
    for index in range(n_steps):
        among = tensors[-1:] if is_chain else tensors
        n_reads = min(len(among), 1 if is_chain else int(rng.integers(0, 4)))
        reads = tuple(rng.choice(among, n_reads, replace=False).tolist()) if n_reads else ()
        written = {f"{index}.{i}": int(rng.integers(1, 200)) for i in range(rng.integers(1, 3))}
        if is_chain:
            written = dict(list(written.items())[:1])
        scratch = int(rng.integers(0, 50))
        in_place = reads if len(written) == 1 and not is_chain and rng.integers(2) else ()
        steps.append(MemoryStep(str(index), reads, written, scratch, in_place))
        tensors += written
    return steps


def live_tensors(steps, keep=()):
    """For every step: the bytes of what must be intact during it, as name -> size."""
    sizes = {name: size for step in steps for name, size in step.writes.items()}
    for index, step in enumerate(steps):
        later = {name for other in steps[index:] for name in other.reads} | set(keep)
        before = {name for other in steps[:index] for name in other.writes}
        yield step, {name: sizes[name] for name in (before & later) | set(step.writes)}


def assert_nothing_overlaps(steps, plan, keep=()):
    for step, live in live_tensors(steps, keep):
        spans = [(plan.offsets[name], size, name) for name, size in live.items()]
        if step.scratch_bytes:
            spans.append((plan.scratch_offsets[step.name], step.scratch_bytes, "scratch"))
        assert all(start % 4 == 0 for start, _, _ in spans)
        assert all(start + size <= plan.arena_bytes for start, size, _ in spans)
        for a, size_a, name_a in spans:
            for b, size_b, name_b in spans:
                if name_a < name_b and a < b + size_b and b < a + size_a:
                    # Only a result that replaces an operand at the same place.
                    result, operand = (
                        (name_a, name_b) if name_a in step.writes else (name_b, name_a)
                    )
                    assert a == b
                    assert result in step.writes
                    assert operand in step.in_place
                    others = steps[steps.index(step) + 1 :]
                    assert all(operand not in other.reads for other in others)
                    assert operand not in keep


@given(st.integers(0, 2**32 - 1))
def test_tensors_that_are_live_together_do_not_overlap(seed):
    steps = random_steps(seed)
    keep = {next(iter(steps[3].writes))}
    plan = plan_memory(steps, keep=keep)
    assert_nothing_overlaps(steps, plan, keep)
    assert plan.tensor_peak_bytes <= plan.peak_bytes <= plan.arena_bytes


@given(st.integers(0, 2**32 - 1))
def test_a_chain_reaches_the_bound(seed):
    steps = random_steps(seed, is_chain=True)
    plan = plan_memory(steps)
    aligned = [-(-next(iter(step.writes.values())) // 4) * 4 for step in steps]
    scratch = [-(-step.scratch_bytes // 4) * 4 for step in steps]
    pairs = [a + b for a, b in zip([0, *aligned], aligned, strict=False)]
    bound = max(pair + extra for pair, extra in zip(pairs, scratch, strict=True))
    assert plan.peak_bytes == bound
    assert plan.arena_bytes == bound
    assert plan.tensor_peak_bytes == max(pairs)


@pytest.mark.parametrize("make", [tiny_net, residual_net, relu_net])
def test_the_networks_reach_the_bound(make):
    memory = Program.of(make()[1]).memory
    assert memory.arena_bytes == memory.peak_bytes > 0


@given(st.integers(0, 2**32 - 1))
def test_random_networks_reach_the_bound(seed):
    memory = Program.of(random_net(seed)[1]).memory
    assert memory.arena_bytes == memory.peak_bytes


def test_a_result_replaces_an_operand_only_at_its_last_use():
    steps = [
        MemoryStep("a", (), {"x": 8}),
        MemoryStep("b", ("x",), {"y": 8}, in_place=("x",)),
        MemoryStep("c", ("x", "y"), {"z": 8}, in_place=("x", "y")),
    ]
    plan = plan_memory(steps, keep={"z"})
    assert plan.offsets["y"] != plan.offsets["x"] == plan.offsets["z"]
    assert plan.arena_bytes == 16


def test_nothing_needs_no_memory():
    plan = plan_memory([MemoryStep("a", ("caller's",), {})])
    assert (plan.arena_bytes, plan.peak_bytes, dict(plan.offsets)) == (0, 0, {})
