# SPDX-License-Identifier: Apache-2.0
"""What candidates cost before they are trained: one exactly, or thousands for a sampler.

Notation: ``n`` points of a search space, given by an index array of shape ``(n, D)``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bitscout.core import METRIC_DIRECTIONS, Budget, Metrics, QuantPolicy
from bitscout.errors import ConfigError, DataError
from bitscout.hardware import (
    HardwareModel,
    LayerModel,
    LookupTable,
    Measured,
    Microcontroller,
    chain_flash_bytes,
    chain_peak_bytes,
    load_table,
    save_table,
    size_report,
)
from bitscout.space import Architecture, LayerTable, SearchSpace

__all__ = ["CandidateCosts"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
OnnxFactory = Callable[[Architecture, QuantPolicy], Callable[[], Path]]

# Of the network alone, by the papers' definitions and for one input, whatever the hardware says.
_OF_THE_NETWORK: Final = ("size_bytes", "weight_bytes", "macs", "bops")
_WHOLE: Final = ("cycles", "peak_memory_bytes", "flash_bytes", "macs", "bops")  # Integers.
IMPOSSIBLE: Final = 1e30  # Where a model has no rule: over any budget, and still finite.


@dataclass(frozen=True)
class CandidateCosts:
    """The costs of the networks of a space on the hardware of a run.

    Where several models know a metric, the largest value counts: the network has to do on all.

    Attributes:
        space: What candidates come from.
        models: The hardware; size and operation counts are always known.
        onnx: Writes an untrained network as a file, for models that measure one.
        folder: Where tables of the layer models and what boards answered are kept; `None` keeps
            them in memory.
    """

    space: SearchSpace
    models: tuple[HardwareModel, ...] = ()
    onnx: OnnxFactory | None = None
    folder: Path | None = None

    def of(
        self, architecture: Architecture, policy: QuantPolicy, budget: Budget | None = None
    ) -> Metrics:
        """Return everything that is known of one network without training it.

        Models that must see a file come last, and are not asked where `budget` is exceeded
        without them.

        Args:
            architecture: The network.
            policy: Bits of every layer.
            budget: What it may cost; `None` asks every model.

        Raises:
            UnsupportedError: If hardware has no rule for a layer or its bits.
            MeasurementError: If a measuring command fails.
        """
        graph = architecture.layers()
        known = size_report(graph, policy).metrics().to_json()
        for model in sorted(self.models, key=lambda model: model.needs_file):
            writer = None
            if model.needs_file:
                if budget is not None and _exceeds(budget, known):
                    break
                assert self.onnx is not None, "models that need a file come with a writer"
                writer = self.onnx(architecture, policy)
            for name, value in model.report(graph, policy, onnx=writer).total.items():
                if name in METRIC_DIRECTIONS and name not in _OF_THE_NETWORK:
                    known[name] = max(known.get(name, 0.0), value)
        return Metrics.from_json(
            {name: round(value) if name in _WHOLE else value for name, value in known.items()}
        )

    @cached_property
    def batch_metrics(self) -> tuple[str, ...]:
        """Metrics that `batch` knows: all but those of models that see the whole network."""
        known, slow = set(_OF_THE_NETWORK), set[str]()
        for model in self.models:
            is_fast = isinstance(model, LayerModel | Microcontroller)
            (known if is_fast else slow).update(set(model.quantities) - {*_OF_THE_NETWORK})
        # A metric that a slow model knows too is not known without asking it.
        return tuple(name for name in METRIC_DIRECTIONS if name in known - slow)

    def batch(self, indices: IndexArray, names: Sequence[str]) -> dict[str, FloatArray]:
        """Return metrics of many networks; the same numbers as `of`.

        Where a model has no rule for a layer, its metrics are `IMPOSSIBLE`.

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
        asked = set(names) - {*_OF_THE_NETWORK}
        providers = [model for model in self.models if asked & set(model.quantities)]
        if not providers and not {"macs", "bops"} & set(names):
            return found
        table = self.space.tabulate(indices)
        macs = np.where(table.present, table.layers.macs, 0)
        if "macs" in names:
            found["macs"] = macs.sum(axis=1).astype(float)
        if "bops" in names:
            products = macs * table.weight_bits * table.act_bits
            found["bops"] = products.sum(axis=1).astype(float)
        for model in providers:
            for name, values in self._totals(model, table).items():
                if name in asked:
                    found[name] = np.maximum(found.get(name, 0.0), values)
        return found

    def _totals(self, model: HardwareModel, table: LayerTable) -> dict[str, FloatArray]:
        if isinstance(model, Microcontroller):
            skips = (table.n_layers, table.skips, table.n_skips)
            peak = chain_peak_bytes(model, table.layers, table.act_bits, *skips)
            flash = chain_flash_bytes(model, table.layers, table.weight_bits, table.present)
            return {"peak_memory_bytes": peak.astype(float), "flash_bytes": flash.astype(float)}
        assert isinstance(model, LayerModel)
        look_up = self._table_of(model)
        columns = (table.layers, table.weight_bits, table.act_bits)
        if look_up.is_known.all():
            totals = look_up.totals(*columns, table.present)
            return {name: np.asarray(values, dtype=float) for name, values in totals.items()}
        has_rule = look_up.has_rule(*columns, table.present)
        totals = look_up.totals(*columns, table.present & has_rule[:, None])
        return {
            name: np.where(has_rule, np.asarray(values, dtype=float), IMPOSSIBLE)
            for name, values in totals.items()
        }

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
        kept = replace(self, models=models, folder=folder)
        for signature, table in self._tables.items():
            kept._tables[signature] = table
            kept._save(table)
        return kept

    def _table_of(self, model: LayerModel) -> LookupTable:
        """Return the costs of every layer the space may have, at all its bits."""
        if model.signature not in self._tables:
            self._tables[model.signature] = self._read_or_build(model)
        return self._tables[model.signature]

    def _read_or_build(self, model: LayerModel) -> LookupTable:
        variants = self.space.layer_variants()
        asked = (variants.layers, variants.weight_bits, variants.act_bits)
        if self.folder is None:
            return LookupTable.build_with_holes(model, *asked)
        path = self.folder / _file_name(model)
        if path.is_file():
            with contextlib.suppress(ConfigError, DataError):  # Damaged or not of this space.
                return load_table(path, model, *asked)
        table = LookupTable.build_with_holes(model, *asked)
        self._save(table)
        return table

    def _save(self, table: LookupTable) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_table(table, self.folder / _file_name(table.model))

    @cached_property
    def _tables(self) -> dict[str, LookupTable]:
        return {}


def _file_name(model: LayerModel) -> str:
    """Return a name that another model, constant or version of either does not have."""
    return f"{Path(model.name).stem}-{model.signature}.npz"


def _exceeds(budget: Budget, known: Mapping[str, float]) -> bool:
    return any(known.get(metric, 0.0) > limit for metric, limit in budget.limits().values())
