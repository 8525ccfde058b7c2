# SPDX-License-Identifier: Apache-2.0
"""Tables of what the layers of a space cost, in memory and with a run."""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path

from bitscout.core import LayerArrays
from bitscout.errors import ConfigError, DataError
from bitscout.hardware import LayerModel, LookupTable, load_table, save_table
from bitscout.space import LayerVariants, SearchSpace

__all__ = ["CostTables"]


class CostTables:
    """One table for each layer model, made when it is first asked for.

    Args:
        space: Whose layers are tabulated, at all bits that it may choose.
        folder: Where tables are kept as files; `None` keeps them in memory.
    """

    def __init__(self, space: SearchSpace, folder: Path | None = None) -> None:
        self._space = space
        self._folder = folder
        self._tables: dict[str, LookupTable] = {}

    def of(self, model: LayerModel) -> LookupTable:
        """Return the costs of every layer the space may have; holes where there is no rule.

        Raises:
            ConfigError: If the file cannot be written.
        """
        if model.signature not in self._tables:
            self._tables[model.signature] = self._read_or_build(model)
        return self._tables[model.signature]

    def covering(self, model: LayerModel, layers: LayerArrays) -> LookupTable:
        """Return the same, grown by `layers`, shape ``(n,)``, where a space cannot list its own.

        Raises:
            ConfigError: If the file cannot be written.
        """
        table = self.of(model)
        if self._variants.is_complete:
            return table
        grown = table.covering(layers, with_holes=True)
        self._tables[model.signature] = grown
        return grown

    @cached_property
    def _variants(self) -> LayerVariants:
        return self._space.layer_variants()

    def kept_in(self, folder: Path) -> CostTables:
        """Return the same tables, with `folder` to read them from and to write them to.

        Raises:
            ConfigError: If a file cannot be written.
        """
        kept = CostTables(self._space, folder)
        kept._tables.update(self._tables)
        for table in self._tables.values():
            kept._save(table)
        return kept

    def _read_or_build(self, model: LayerModel) -> LookupTable:
        variants = self._variants
        asked = (variants.layers, variants.weight_bits, variants.act_bits)
        path = self._path(model)
        if path is not None and path.is_file():
            with contextlib.suppress(ConfigError, DataError):  # Damaged or not of this space.
                return load_table(path, model, *asked)
        table = LookupTable.build_with_holes(model, *asked)
        self._save(table)
        return table

    def _save(self, table: LookupTable) -> None:
        path = self._path(table.model)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_table(table, path)

    def _path(self, model: LayerModel) -> Path | None:
        """Return a file name that another model, constant or version of either does not have."""
        if self._folder is None:
            return None
        return self._folder / f"{Path(model.name).stem}-{model.signature}.npz"
