# SPDX-License-Identifier: Apache-2.0
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from bitscout.core import child_rng
from bitscout.errors import DataError
from bitscout.training.split import stratified_split, stratified_subset

class_counts = st.lists(st.integers(10, 60), min_size=2, max_size=8)


def shuffled_labels(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return child_rng(0, "shuffle").permutation(labels)


@given(counts=class_counts, percent=st.integers(12, 88), seed=st.integers(0, 2**32))
def test_parts_are_disjoint_complete_and_keep_every_class_share(counts, percent, seed):
    labels = shuffled_labels(counts)
    fraction = percent / 100
    first, second = stratified_split(labels, fraction, child_rng(seed), what="validation")
    assert sorted([*first, *second]) == list(range(len(labels)))
    assert len(second) == ceil(percent * len(labels) / 100)
    taken = np.bincount(labels[second], minlength=len(counts))
    exact = np.asarray(counts) * len(second) / len(labels)
    assert (np.abs(taken - exact) < 1).all()


@given(counts=class_counts, size=st.integers(0, 40), seed=st.integers(0, 2**32))
def test_a_subset_has_the_size_asked_for_and_keeps_every_class_share(counts, size, seed):
    labels = shuffled_labels(counts)
    size = min(len(labels), 12 * len(counts) + size)
    rows = stratified_subset(labels, size, child_rng(seed))
    assert len(set(rows.tolist())) == len(rows) == size
    exact = np.asarray(counts) * size / len(labels)
    assert (np.abs(np.bincount(labels[rows], minlength=len(counts)) - exact) < 1).all()


def test_class_sizes_agree_with_scikit_learn():
    labels = shuffled_labels([178, 182, 177, 183, 181])
    _, ours = stratified_split(labels, 0.2, child_rng(0), what="test")
    _, theirs = train_test_split(labels, test_size=0.2, stratify=labels, random_state=0)
    counts = np.bincount(labels[ours])
    # Which of the classes with nearly equal remainders is rounded up is free.
    assert counts.sum() == len(theirs)
    assert np.abs(counts - np.bincount(theirs)).max() <= 1


def test_same_generator_seed_gives_the_same_rows_and_another_seed_others():
    labels = shuffled_labels([30, 30])
    parts = [
        stratified_split(labels, 0.3, child_rng(seed), what="test")[1].tolist()
        for seed in (1, 1, 2)
    ]
    assert parts[0] == parts[1] != parts[2]


def test_a_fraction_without_an_exact_binary_form_is_not_rounded_up():
    labels = shuffled_labels([50, 50])
    assert len(stratified_split(labels, 0.07, child_rng(0), what="test")[1]) == 7


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_fractions_out_of_range_are_rejected(fraction):
    with pytest.raises(DataError, match=r"validation fraction must be in \(0, 1\), got"):
        stratified_split(shuffled_labels([9, 9]), fraction, child_rng(0), what="validation")


def test_a_class_with_one_image_is_named():
    with pytest.raises(DataError, match=r"Class 1 has one image.*at least two.*Add images"):
        stratified_split(np.asarray([0, 0, 0, 1]), 0.5, child_rng(0), what="test")


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (0.05, r"leaves class 1 \(3 images\) out of the validation split. Raise"),
        (0.95, r"leaves class 1 \(3 images\) out of the training split. Lower"),
    ],
)
def test_a_fraction_that_leaves_a_class_out_is_rejected(fraction, message):
    with pytest.raises(DataError, match=message):
        stratified_split(shuffled_labels([60, 3]), fraction, child_rng(0), what="validation")


def test_a_subset_larger_than_the_data_is_rejected():
    with pytest.raises(DataError, match="`limit` asks for 11 training images, but there are 10"):
        stratified_subset(shuffled_labels([5, 5]), 11, child_rng(0))


def test_a_subset_that_starves_a_class_is_rejected():
    with pytest.raises(
        DataError, match=r"`limit` = 12 leaves class 1 with 1 images.*at least two"
    ):
        stratified_subset(shuffled_labels([100, 5]), 12, child_rng(0))
