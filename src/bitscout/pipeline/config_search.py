# SPDX-License-Identifier: Apache-2.0
"""Sections of a configuration: who chooses, and what is better."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from bitscout.core import (
    METRIC_DIRECTIONS,
    AccuracyScore,
    BompScore,
    Budget,
    FrontObjective,
    Objective,
    PenalizedScore,
)
from bitscout.pipeline.config_section import PositiveFloat, PositiveInt, Section

__all__ = ["BudgetConfig", "ObjectiveConfig", "SearcherConfig"]


class SearcherConfig(Section):
    """Who chooses.

    Attributes:
        name: ``bomp`` (Gaussian process, UCB), ``random``, ``kmeans-tpe``, ``guided`` (for given
            networks: begins with an integer program's solutions), or a sampler of Optuna at its
            defaults: ``tpe``, ``gp``, ``nsga2``, ``nsga3``.
        surrogate: Model of ``bomp``: ``paper``, ``edit-distance`` or ``scaled``.
        n_trials: Candidates to evaluate, infeasible and failed ones included.
        n_startup_trials: Completed trials before ``bomp`` or ``kmeans-tpe`` asks its model: the
            seed network and random ones.
        variant: Of ``kmeans-tpe``: ``joint`` proposes the best of 24 whole points drawn,
            ``literal`` maximizes every choice by itself and repeats points, as the paper's
            integration in HyperOpt would, ``improved`` is the one that measured best.
        batch: Candidates proposed together; the history depends on it.
        beta: Weight of the posterior standard deviation in UCB.
    """

    name: Literal["bomp", "random", "kmeans-tpe", "guided", "tpe", "gp", "nsga2", "nsga3"] = "bomp"
    surrogate: Literal["paper", "edit-distance", "scaled"] = "paper"
    n_trials: PositiveInt = 100
    n_startup_trials: PositiveInt = 10
    variant: Literal["joint", "literal", "improved"] = "joint"
    batch: PositiveInt = 1
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.6


class ObjectiveConfig(Section):
    """What is better: one score, or a front.

    Attributes:
        score: ``bomp``, Eq. (1) of BOMP-NAS; ``accuracy`` alone, which needs a `budget` to make
            sense; or ``penalized``, as k-means TPE: candidates over the budget are trained all
            the same and lose accuracy for it. A `front` replaces it.
        penalty: Accuracy, a fraction, that being 100 % over a bound costs a ``penalized`` score.
        ref_accuracy: Reference accuracy of the score, a fraction.
        ref_size: Reference of log10(bits) of the score.
        front: Two to four metrics optimized at once instead of the score, for instance
            ``[accuracy, size_bytes, energy_mj]``.
    """

    score: Literal["bomp", "accuracy", "penalized"] | None = "bomp"
    penalty: PositiveFloat = 1.0
    ref_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.8
    ref_size: PositiveFloat = 8.0
    front: Annotated[list[str], Field(min_length=2, max_length=4)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _front_replaces_score(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("front") is not None:
            return {**data, "score": None}
        if isinstance(data, dict) and data.get("score", "bomp") is None:
            msg = "nothing to optimize: name a `score` or a `front`"
            raise ValueError(msg)
        return data

    @field_validator("front")
    @classmethod
    def _known_metrics(cls, front: list[str] | None) -> list[str] | None:
        if front is None:
            return None
        names = ["val_accuracy" if name == "accuracy" else name for name in front]
        for name in names:
            if name not in METRIC_DIRECTIONS or name == "test_accuracy":
                costs = [m for m in METRIC_DIRECTIONS if not m.endswith("_accuracy")]
                near = [metric for metric in costs if metric.startswith(f"{name}_")]
                hint = f", did you mean {near[0]!r}?" if near else ";"
                msg = f"unknown metric {name!r}{hint} known: {', '.join(('accuracy', *costs))}"
                raise ValueError(msg)
        if "val_accuracy" not in names:
            msg = "accuracy must be one of the metrics: the others need no search of trainings"
            raise ValueError(msg)
        if len(set(names)) != len(names):
            msg = "metrics must be different"
            raise ValueError(msg)
        return names

    def build(self, budget: Budget | None = None) -> Objective:
        """Return the objective these keys describe.

        Args:
            budget: What a penalized score is penalized for.

        Raises:
            ConfigError: If the score is penalized and `budget` has no bound.
        """
        if self.front is not None:
            return FrontObjective(tuple(self.front))
        if self.score == "accuracy":
            return AccuracyScore()
        if self.score == "penalized":
            return PenalizedScore(tuple((budget or Budget()).limits().values()), self.penalty)
        return BompScore(self.ref_accuracy, self.ref_size)


class BudgetConfig(Section):
    """What a candidate may cost, any subset; over budget it is recorded and never trained.

    Latency and energy are those of one batch on the run's `hardware`. Where several kinds of
    hardware know a quantity, each has to keep to the bound.

    Attributes:
        size_kb: Largest size in kB (1000 bytes), weights and int32 biases, whatever packing
            `hardware` says; what a device stores is `flash_kb`.
        peak_memory_kb: Largest sum of live activations in kB.
        flash_kb: Largest size of the constants on a microcontroller in kB.
        latency_ms: Longest time in ms.
        energy_mj: Largest energy in mJ.
        macs: Most multiply-accumulates for one input.
        bops: Most bit operations for one input.
    """

    size_kb: PositiveFloat | None = None
    peak_memory_kb: PositiveFloat | None = None
    flash_kb: PositiveFloat | None = None
    latency_ms: PositiveFloat | None = None
    energy_mj: PositiveFloat | None = None
    macs: PositiveFloat | None = None
    bops: PositiveFloat | None = None

    def build(self) -> Budget:
        """Return the budget these keys describe."""
        return Budget(**self.model_dump())
