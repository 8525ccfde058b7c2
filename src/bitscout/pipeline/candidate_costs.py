# SPDX-License-Identifier: Apache-2.0
"""What candidates cost before they are trained: one exactly, or thousands for a sampler.

Notation: ``n`` points of a search space, given by an index array of shape ``(n, D)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bitscout.core import METRIC_DIRECTIONS, LayerGraph, Metrics, QuantPolicy
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware import (
    HardwareModel,
    LayerModel,
    Measured,
    Microcontroller,
    chain_flash_bytes,
    chain_peak_bytes,
    size_report,
)
from bitscout.pipeline.cost_tables import CostTables
from bitscout.space import Architecture, LayerTable, SearchSpace

__all__ = ["IMPOSSIBLE", "CandidateCosts"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
OnnxFactory = Callable[[Architecture, QuantPolicy], Callable[[], Path]]

# Of the network alone, by the papers' definitions and for one input, whatever the hardware says.
_OF_THE_NETWORK: Final = ("size_bytes", "weight_bytes", "macs", "bops")
_WHOLE: Final = ("cycles", "peak_memory_bytes", "flash_bytes")  # Integers.
# Where a model has no rule, for each layer: over any budget, still finite, and with a slope for
# who walks towards networks that it can run.
IMPOSSIBLE: Final = 1e30


@dataclass(frozen=True)
class CandidateCosts:
    """The costs of the networks of a space on the hardware of a run.

    Where several models know a metric, the largest value counts: the network has to do on all.

    Attributes:
        space: What candidates come from.
        models: The hardware; size and operation counts are always known.
        onnx: Writes an untrained network as a file, for models that measure one.
        tables: Where the costs of layers are looked up; `None` makes them in memory.
    """

    space: SearchSpace
    models: tuple[HardwareModel, ...] = ()
    onnx: OnnxFactory | None = None
    tables: CostTables | None = None

    def of(self, architecture: Architecture, policy: QuantPolicy) -> Metrics:
        """Return everything that is known of one network without training it.

        Raises:
            UnsupportedError: If hardware has no rule for a layer or its bits.
            MeasurementError: If a measuring command fails.
        """
        return self.measured(architecture, policy, self.computed(architecture, policy))

    def computed(self, architecture: Architecture, policy: QuantPolicy) -> Metrics:
        """Return what is known without asking models that must see a file.

        Raises:
            UnsupportedError: If hardware has no rule for a layer or its bits.
        """
        graph = architecture.layers()
        known = size_report(graph, policy).metrics()
        for model in self.models:
            if isinstance(model, LayerModel):
                known = _with(known, self._looked_up(model, graph, policy))
            elif not model.needs_file:
                known = _with(known, model.report(graph, policy).total)
        return known

    def measured(
        self, architecture: Architecture, policy: QuantPolicy, computed: Metrics
    ) -> Metrics:
        """Return `computed` and what models say that must see a file.

        Raises:
            UnsupportedError: If hardware has no rule for a layer or its bits.
            MeasurementError: If a measuring command fails.
        """
        known, graph = computed, architecture.layers()
        for model in self.models:
            if model.needs_file:
                assert self.onnx is not None, "models that need a file come with a writer"
                writer = self.onnx(architecture, policy)
                known = _with(known, model.report(graph, policy, onnx=writer).total)
        return known

    @property
    def is_measured(self) -> bool:
        """Whether some model must see a file, so that its answer may differ or fail."""
        return any(model.needs_file for model in self.models)

    def _looked_up(
        self, model: LayerModel, graph: LayerGraph, policy: QuantPolicy
    ) -> Mapping[str, float]:
        try:
            return self._tables.of(model).bind(graph).policy_totals(policy)
        except (ConfigError, UnsupportedError):
            # A baseline at bits that the space does not have, which the table lacks; or a layer
            # without a rule, which the model refuses by its name.
            return model.report(graph, policy).total

    @cached_property
    def batch_metrics(self) -> tuple[str, ...]:
        """Metrics that `batch` knows: all but those of models that see the whole network."""
        known, slow = set(_OF_THE_NETWORK), set[str]()
        for model in self.models:
            is_fast = isinstance(model, LayerModel)
            # Memory is known in batches of chains alone.
            is_fast |= isinstance(model, Microcontroller) and self.space.is_chain
            (known if is_fast else slow).update(set(model.quantities) - {*_OF_THE_NETWORK})
        # A metric that a slow model knows too is not known without asking it.
        return tuple(name for name in METRIC_DIRECTIONS if name in known - slow)

    @cached_property
    def metrics_with_holes(self) -> tuple[str, ...]:
        """One of `batch_metrics` of each model that has no rule for some layers of the space."""
        own = [name for name in self.batch_metrics if name not in _OF_THE_NETWORK]
        found = []
        for model in self.models:
            metric = next((name for name in own if name in model.quantities), None)
            if metric is None or not isinstance(model, LayerModel):
                continue
            if not self._tables.of(model).is_known.all():
                found.append(metric)
        return tuple(found)

    @property
    def notes(self) -> Iterator[str]:
        """Yield a sentence about each model that has no rule for a part of the space."""
        for model in self.models:
            if not isinstance(model, LayerModel):
                continue
            is_known = self._tables.of(model).is_known
            if not is_known.all():
                yield (
                    f"{model.spec} has no rule for {(~is_known).sum():,} of {is_known.size:,} "
                    "choices of a layer and its bits; candidates with one of them are not trained."
                )

    def batch(self, indices: IndexArray, names: Sequence[str]) -> dict[str, FloatArray]:
        """Return metrics of many networks: those of `of`, up to the order of summation.

        Where a model has no rule for some layers, its metrics are `IMPOSSIBLE` times their number.

        Args:
            indices: Shape ``(n, D)``.
            names: Some of `batch_metrics`.

        Returns:
            Arrays of shape ``(n,)`` by name.
        """
        found: dict[str, FloatArray] = {}
        if "size_bytes" in names:
            found["size_bytes"] = self.space.size_bits(indices) / 8
        if "weight_bytes" in names:
            found["weight_bytes"] = self.space.weight_bits(indices) / 8
        asked = set(names) - {"size_bytes", "weight_bytes"}
        if not asked:
            return found
        table = self._tabulated(indices)
        if asked & {"macs", "bops"}:
            macs = np.where(table.present, table.layers.macs, 0)
            found["macs"] = macs.sum(axis=1).astype(float)
            found["bops"] = (macs * table.weight_bits * table.act_bits).sum(axis=1).astype(float)
        asked -= {*_OF_THE_NETWORK}
        for model in self.models:
            for name, values in self._totals(model, table, asked & set(model.quantities)).items():
                whole = np.rint(values) if name in _WHOLE else values
                found[name] = np.maximum(found.get(name, 0.0), whole)
        return {name: found[name] for name in names}

    def _totals(
        self, model: HardwareModel, table: LayerTable, names: Set[str]
    ) -> dict[str, FloatArray]:
        """Return `names`, quantities of the model, for each network."""
        if not names:
            return {}
        if isinstance(model, Microcontroller):
            return _memory(model, table, names)
        assert isinstance(model, LayerModel), "other models are not among `batch_metrics`"
        look_up = self._tables.covering(model, table.layers[table.present])
        columns = (table.layers, table.weight_bits, table.act_bits)
        present, n_without_rule = table.present, np.zeros(len(table.n_layers))
        if not look_up.is_known.all():
            n_without_rule = look_up.n_without_rule(*columns, present).astype(float)
            present = present & (n_without_rule == 0)[:, None]
        totals = look_up.totals(*columns, present)
        impossible = IMPOSSIBLE * n_without_rule
        return {name: np.where(n_without_rule > 0, impossible, totals[name]) for name in names}

    def _tabulated(self, indices: IndexArray) -> LayerTable:
        """Return the layers of many networks; the last ones asked for are remembered.

        A sampler asks for the violation and for each objective of the same points.
        """
        key = np.ascontiguousarray(indices).tobytes()
        if self._last.get("key") != key:
            self._last.update(key=key, table=self.space.tabulate(indices))
        table: LayerTable = self._last["table"]
        return table

    @cached_property
    def _last(self) -> dict[str, Any]:
        return {}

    def kept_in(self, folder: Path) -> CandidateCosts:
        """Return the same costs with `folder` as their memory.

        Boards answer the same question once in a run, so that a resumed run sees the numbers the
        interrupted one saw. Only models without a cache of their own get one.
        """
        models = tuple(
            replace(model, cache=str(folder / f"{Path(model.name).stem}.jsonl"))
            if isinstance(model, Measured) and model.cache is None
            else model
            for model in self.models
        )
        return replace(self, models=models, tables=self._tables.kept_in(folder))

    @cached_property
    def _tables(self) -> CostTables:
        return CostTables(self.space) if self.tables is None else self.tables


def _with(known: Metrics, total: Mapping[str, float]) -> Metrics:
    """Return `known` with what hardware says of a network; the larger of two values counts."""
    values = known.to_json()
    for name, value in total.items():
        if name in METRIC_DIRECTIONS and name not in _OF_THE_NETWORK:
            whole = round(value) if name in _WHOLE else value
            values[name] = max(values.get(name, 0), whole)
    return Metrics.from_json(values)


def _memory(model: Microcontroller, table: LayerTable, names: Set[str]) -> dict[str, FloatArray]:
    found = {}
    if "peak_memory_bytes" in names:
        skips = (table.n_layers, table.skips, table.n_skips)
        peak = chain_peak_bytes(model, table.layers, table.act_bits, *skips)
        found["peak_memory_bytes"] = peak.astype(float)
    if "flash_bytes" in names:
        flash = chain_flash_bytes(model, table.layers, table.weight_bits, table.present)
        found["flash_bytes"] = flash.astype(float)
    return found
