# SPDX-License-Identifier: Apache-2.0
"""Training: resident uint8 data, one recipe, one loop, checkpoints."""

from bitscout.training.augment import Augmenter, default_shift
from bitscout.training.checkpoint import load_weights, save_weights
from bitscout.training.data import (
    ImageData,
    Normalizer,
    Split,
    SplitName,
    calibration_batch,
    labelled_batch,
)
from bitscout.training.load import DATASETS, load_dataset
from bitscout.training.loop import OnEpoch, TrainHistory, evaluate, train
from bitscout.training.recipe import OptimizerName, Phase, Recipe
from bitscout.training.schedules import Cosine, OneCycle, Schedule, Triangular
from bitscout.training.seeding import fork_rng, torch_generator
from bitscout.training.torch_dataset import from_dataset

__all__ = [
    "DATASETS",
    "Augmenter",
    "Cosine",
    "ImageData",
    "Normalizer",
    "OnEpoch",
    "OneCycle",
    "OptimizerName",
    "Phase",
    "Recipe",
    "Schedule",
    "Split",
    "SplitName",
    "TrainHistory",
    "Triangular",
    "calibration_batch",
    "default_shift",
    "evaluate",
    "fork_rng",
    "from_dataset",
    "labelled_batch",
    "load_dataset",
    "load_weights",
    "save_weights",
    "torch_generator",
    "train",
]
