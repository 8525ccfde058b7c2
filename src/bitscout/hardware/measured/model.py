# SPDX-License-Identifier: Apache-2.0
"""A hardware model that asks a command.

The command is started with the path of an ONNX file as its last argument and one JSON document on
stdin, and answers one JSON object on stdout; what else it has to say goes to stderr::

    {"onnx": "/.../model.onnx", "batch": 1, "quantities": ["latency_ms"],
     "layers": [{"name": "stem", "kind": "conv", ..., "macs": 1728, "weight_bits": 4,
                 "act_bits": 8}, ...],
     "nodes": [{"name": "stem", "op": "conv", "inputs": ["input"], ...}, ...]}

    {"latency_ms": 1.9, "layers": {"stem": {"latency_ms": 0.3}}}

``layers`` of the answer is optional. The rest of the answer is not looked at.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from bitscout.core import LayerArrays, LayerGraph, QuantPolicy, canonical_json
from bitscout.errors import ConfigError, MeasurementError
from bitscout.hardware.measured.cache import append_line, find_line
from bitscout.hardware.measured.command import join_command, run_command, split_command
from bitscout.hardware.measured.quantities import Answer, Quantities
from bitscout.hardware.model import HardwareModel, layer_kinds, tunable
from bitscout.hardware.options import Notation
from bitscout.hardware.report import CostReport, LayerCost

__all__ = ["Measured"]

_log = logging.getLogger(__name__)  # Silent until somebody listens, as `bitscout cost` does.
_COMMAND: Final = Notation("a command, as text or as a list of words", split_command, join_command)
_LATENCY: Final = Quantities(["latency_ms"])
_QUANTITIES: Final = Notation("names joined by +, or a list of names", Quantities.read, str)


@dataclass(frozen=True, kw_only=True)
class Measured(HardwareModel):
    """What a command measures or computes for a network in an ONNX file.

    A command that fails, hangs or answers rubbish is tried again; the last failure is raised with
    the command's last lines. Answers are kept in `cache`, by everything that is asked except the
    path of the file, and by the command's words; not by the content of the programs they name, nor
    by the weights. Delete the file when these change what is measured.

    Attributes:
        command: Program and arguments, each a word; no shell is involved.
        quantities: What it must answer.
        timeout_s: After this time the command, and all it has started, is killed.
        retries: How often it is tried again after a failure.
        cache: File of the answers, one JSON object a line; `None` to ask every time.
    """

    needs_file: ClassVar[bool] = True
    is_dilation_supported: ClassVar[bool] = True

    command: tuple[str, ...] = tunable((), notation=_COMMAND)
    quantities: Quantities = tunable(_LATENCY, notation=_QUANTITIES)  # noqa: RUF009  # a field
    timeout_s: float = tunable(60.0, "s")
    retries: int = tunable(1, minimum=0)
    cache: str | None = tunable(None)

    def __post_init__(self) -> None:
        """Reject a command that is none, and times and counts that cannot be."""
        super().__post_init__()
        if not self.command:
            msg = (
                f"Hardware {self.name!r} needs the command that measures: write "
                f"'{self.name}:command=python measure.py', quotes included where a shell reads it."
            )
            raise ConfigError(msg)
        if not math.isfinite(self.timeout_s):
            msg = f"`timeout_s` of hardware {self.name!r} must be finite, got {self.timeout_s}."
            raise ConfigError(msg)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures must know."""
        return (*super().notes, f"Measured by: {join_command(self.command)}")

    def report(
        self,
        graph: LayerGraph,
        policy: QuantPolicy,
        *,
        onnx: Callable[[], Path] | None = None,
    ) -> CostReport:
        """Return what the command answers; see `HardwareModel.report`.

        Raises:
            PolicyError: If the policy does not name exactly the layers of the graph.
            ConfigError: If there is no file to measure, the command cannot be started, or the
                cache cannot be used.
            MeasurementError: If the command failed at every attempt.
        """
        policy.check_covers(graph.names)
        request = self._request(graph, policy)
        key = self._key(request)
        answer = self._kept(key, graph)
        if answer is None:
            if onnx is None:
                msg = (
                    f"Hardware {self.name!r} measures an ONNX file, and there is none for this "
                    "network. Ask for the cost of a configuration or of a candidate of a run."
                )
                raise ConfigError(msg)
            answer = self._ask(request, onnx(), graph)
            if self.cache is not None:
                append_line(Path(self.cache).expanduser(), key, answer.to_json())
                # Another process may have been first: all take the answer that comes first.
                answer = self._kept(key, graph) or answer
        kinds = layer_kinds(LayerArrays.of(graph))
        return CostReport(
            hardware=self.spec,
            batch=self.batch,
            units=self.quantities,
            total=answer.total,
            layers=tuple(
                LayerCost(
                    layer.name,
                    str(kind),
                    layer.macs,
                    policy[layer.name].weight_bits,
                    policy[layer.name].act_bits,
                    answer.layers.get(layer.name, {}),
                )
                for layer, kind in zip(graph, kinds, strict=True)
            ),
            notes=self.notes,
            description=self.origin.description,
        )

    def _request(self, graph: LayerGraph, policy: QuantPolicy) -> dict[str, Any]:
        layers = [
            {**asdict(layer), "macs": layer.macs, **asdict(policy[layer.name])} for layer in graph
        ]
        return {
            "batch": self.batch,
            "quantities": sorted(self.quantities),
            "layers": layers,
            "nodes": [asdict(node) for node in graph.nodes],
        }

    def _key(self, request: Mapping[str, Any]) -> str:
        text = canonical_json({"command": self.command, "request": request})
        return hashlib.sha256(text.encode()).hexdigest()

    def _kept(self, key: str, graph: LayerGraph) -> Answer | None:
        if self.cache is None:
            return None
        document = find_line(Path(self.cache).expanduser(), key)
        if document is None:
            return None
        try:
            return Answer.read(document, self.quantities, graph.names)
        except ValueError:
            return None  # Somebody has edited it: ask again.

    def _ask(self, request: Mapping[str, Any], path: Path, graph: LayerGraph) -> Answer:
        words = (*self.command, str(path.absolute()))
        text = canonical_json({"onnx": str(path.absolute()), **request})
        failure = tail = ""
        for attempt in range(1 + self.retries):
            _log.info(
                "Measuring with `%s`, attempt %d of %d, up to %g s.",
                *(join_command(self.command), attempt + 1, 1 + self.retries, self.timeout_s),
            )
            try:
                outcome = run_command(words, text, self.timeout_s)
            except (OSError, ValueError) as error:
                msg = (
                    f"The command of hardware {self.name!r} cannot be started: {error}. Check "
                    "that its program is installed, and its path."
                )
                raise ConfigError(msg) from error
            tail = outcome.tail
            try:
                return self._read(outcome.failure, outcome.stdout, graph)
            except ValueError as error:
                failure = str(error)
        attempts = "1 attempt" if self.retries == 0 else f"{1 + self.retries} attempts"
        said = f" Its last lines:\n{tail}" if tail else " It wrote nothing."
        msg = (
            f"Hardware {self.name!r}: the command `{join_command(self.command)}` gave no "
            f"measurement in {attempts}: {failure}.{said}"
        )
        raise MeasurementError(msg)

    def _read(self, failure: str | None, stdout: str, graph: LayerGraph) -> Answer:
        if failure is not None:
            raise ValueError(failure)
        try:
            document = json.loads(stdout)
        except (ValueError, RecursionError) as error:
            said = repr(stdout[:200]) if stdout.strip() else "nothing"
            msg = (
                f"it must write one JSON object on stdout, and everything else on stderr; it "
                f"wrote {said}"
            )
            raise ValueError(msg) from error
        return Answer.read(document, self.quantities, graph.names)
