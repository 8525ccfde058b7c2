"""What passes, and what can never pass."""

import re

import numpy as np
import pytest

from bitscout.export.checks.result import compare_integers, compare_reals

REFERENCE = np.random.default_rng(0).normal(0, 10, (1000, 10))
INTEGERS = np.random.default_rng(0).integers(-1000, 1000, (1000, 10))


def test_equal_outputs_pass():
    for result in (
        compare_integers("x", "", INTEGERS, INTEGERS),
        compare_reals("x", "", REFERENCE, REFERENCE),
    ):
        assert (result.state, result.mismatches, result.max_lsb) == ("passed", 0, 0)
        assert (result.outputs, result.argmax_agreement, result.reason) == (10_000, 1.0, "")


def test_one_different_integer_fails():
    outputs = INTEGERS.copy()
    outputs[3, 4] += 1
    result = compare_integers("x", "", INTEGERS, outputs)
    assert (result.state, result.mismatches, result.max_lsb) == ("failed", 1, 1)


def test_few_real_outputs_may_be_one_step_off():
    step = np.ptp(REFERENCE) / 255
    outputs = REFERENCE.copy()
    smallest = REFERENCE.argmin(axis=1)[:9]
    outputs[np.arange(9), smallest] -= step
    result = compare_reals("x", "", REFERENCE, outputs)
    assert (result.state, result.mismatches, result.max_lsb) == ("passed", 9, 1)


@pytest.mark.parametrize("n", [10, 500])
def test_a_thousandth_of_real_outputs_off_by_a_step_fails(n):
    outputs = REFERENCE.copy()
    outputs[np.arange(n), REFERENCE.argmin(axis=1)[:n]] -= np.ptp(REFERENCE) / 255
    result = compare_reals("x", "", REFERENCE, outputs)
    assert (result.state, result.mismatches) == ("failed", n)
    assert "exact_steps: true" in result.reason


def test_one_real_output_two_steps_off_fails():
    outputs = REFERENCE.copy()
    outputs[0, REFERENCE[0].argmin()] -= 2 * np.ptp(REFERENCE) / 255
    assert compare_reals("x", "", REFERENCE, outputs).state == "failed"


def test_one_image_of_another_class_fails_however_small_the_difference():
    reference = REFERENCE.copy()
    reference[0, :2] = reference[0].max() + 5
    reference[0, 0] += 1e-6
    outputs = reference.copy()
    outputs[0, 1] += 2e-6
    result = compare_reals("x", "", reference, outputs)
    assert (result.state, result.argmax_agreement) == ("failed", 0.999)
    assert "another class" in result.reason


@pytest.mark.parametrize("compare", [compare_integers, compare_reals])
@pytest.mark.parametrize(
    ("reference", "outputs", "reason"),
    [
        (np.ones((4, 10)), np.ones((1, 10)), r"shape \(1, 10\), the reference \(4, 10\)"),
        (np.ones((0, 10)), np.ones((0, 10)), "no image"),
    ],
)
def test_what_cannot_be_compared_fails(compare, reference, outputs, reason):
    result = compare("x", "", reference.astype(int), outputs.astype(int))
    assert result.state == "failed"
    assert result.argmax_agreement is None
    assert re.search(reason, result.reason)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_fail(value):
    outputs = REFERENCE.copy()
    outputs[5, 5] = value
    result = compare_reals("x", "", REFERENCE, outputs)
    assert (result.state, result.reason) == ("failed", "some of its outputs are not finite")


def test_classes_are_compared_by_score_and_not_by_integer():
    reference = np.array([[3, 2]])
    outputs = np.array([[3, 4]])
    result = compare_integers("x", "", reference, outputs, scores=lambda x: x * [10.0, 1.0])
    assert result.argmax_agreement == 1.0
    assert compare_integers("x", "", reference, outputs).argmax_agreement == 0.0
