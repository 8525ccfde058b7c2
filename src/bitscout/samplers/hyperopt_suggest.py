# SPDX-License-Identifier: Apache-2.0
"""k-means TPE as an algorithm of HyperOpt, into which the paper integrates it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitscout.core import child_rng
from bitscout.errors import UnsupportedError
from bitscout.samplers.densities import DensityEstimator
from bitscout.samplers.design_space import DesignSpace
from bitscout.samplers.hooks import SpaceHooks
from bitscout.samplers.hyperopt_space import ConditionalDensity, HyperoptSpace
from bitscout.samplers.observation_split import ClusterSplit, SplitRule
from bitscout.samplers.product_parzen import ProductParzen
from bitscout.samplers.ratio_selection import JointSelection, RatioQuestion, Selection

__all__ = ["kmeans_tpe_suggest"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
# Random points that were evaluated before are drawn again this often.
MAX_REDRAWS = 20


def kmeans_tpe_suggest(  # noqa: PLR0913  # Four of HyperOpt, and each part of the algorithm
    new_ids: Sequence[int],
    domain: Any,  # noqa: ANN401  # HyperOpt has no types
    trials: Any,  # noqa: ANN401
    seed: int,
    *,
    n_startup_jobs: int = 20,
    split: SplitRule | None = None,
    estimator: DensityEstimator | None = None,
    selection: Selection | None = None,
) -> list[dict[str, Any]]:
    """Suggest trials to HyperOpt: `hyperopt.fmin(..., algo=kmeans_tpe_suggest)`.

    `functools.partial` sets the keyword arguments, which are those of `KMeansTPESampler`.
    Trials that failed or have no finite loss are in no cluster, those that run do not block.
    Choices and `hp.randint` are counted; for ordered values, bits or widths, use
    `hp.uniformint`. Labels below a choice are modelled where they exist.

    Args:
        new_ids: Numbers of the trials to suggest.
        domain: The `hyperopt.base.Domain` with the space.
        trials: The `hyperopt.Trials` so far.
        seed: What `fmin` draws for each call.
        n_startup_jobs: Trials with a loss before the model is used; until then at random.
        split: Which observations are desirable and which are not.
        estimator: How densities are fitted.
        selection: How their ratio is maximized.

    Returns:
        HyperOpt's documents of new trials.

    Raises:
        UnsupportedError: If a label has an unbounded or log-quantized distribution, or HyperOpt
            is not installed.
    """
    try:
        from hyperopt.base import miscs_update_idxs_vals
    except ImportError as error:
        msg = "HyperOpt is not installed; pip install 'bitscout[hyperopt]' brings it."
        raise UnsupportedError(msg) from error
    space = HyperoptSpace.of(domain)
    split = ClusterSplit() if split is None else split
    estimator = ProductParzen() if estimator is None else estimator
    selection = JointSelection() if selection is None else selection
    rows, active, losses = _observations(space, trials)
    design = DesignSpace(space.encoding, SpaceHooks())
    taken = set(design.keys(rows))
    known = np.isfinite(losses)
    t = int(known.sum()) - n_startup_jobs
    sides = split.split(losses[known], t) if t >= 0 else None
    documents: list[dict[str, Any]] = []
    for new_id in new_ids:
        rng = child_rng(int(seed), "hyperopt", int(new_id))
        row = None
        if sides is not None:
            good, bad = (
                ConditionalDensity.fit(space, estimator, rows[known][side], active[known][side])
                for side in sides
            )
            question = RatioQuestion(design, good, bad, frozenset(taken), rng)
            row = space.canonical(selection.select(question)[None])[0]
        if row is None:
            row = _random_row(space, design, taken, rng)
        taken.add(design.keys(row[None])[0])
        misc = {"tid": new_id, "cmd": domain.cmd, "workdir": domain.workdir}
        values = space.decode(row)
        idxs = {name: [new_id] if name in values else [] for name in space.encoding.names}
        vals = {name: [values[name]] if name in values else [] for name in space.encoding.names}
        miscs_update_idxs_vals([misc], idxs, vals)
        documents += trials.new_trial_docs([new_id], [None], [domain.new_result()], [misc])
    return documents


def _observations(
    space: HyperoptSpace,
    trials: Any,  # noqa: ANN401
) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Return rows, which labels each has, and losses, NaN without one; in order of suggestion."""
    documents = sorted(trials.trials, key=lambda document: document["tid"])
    points = [
        {name: values[0] for name, values in document["misc"]["vals"].items() if len(values)}
        for document in documents
    ]
    losses = [
        np.nan if document["result"].get("loss") is None else float(document["result"]["loss"])
        for document in documents
    ]
    if not points:
        empty = np.empty((0, len(space.encoding.names)))
        return empty, empty.astype(bool), np.empty(0)
    rows, active = space.encode(points)
    return rows, active, np.array(losses)


def _random_row(
    space: HyperoptSpace, design: DesignSpace, taken: set[bytes], rng: np.random.Generator
) -> FloatArray:
    """Return a uniformly random row, a new one if there is one at hand, shape ``(D,)``."""
    rows = space.canonical(space.encoding.random_rows(rng, MAX_REDRAWS))
    fresh = design.distinct(rows, frozenset(taken))
    return np.asarray(fresh[0] if len(fresh) else rows[0])
