# SPDX-License-Identifier: Apache-2.0
"""What a check is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["CheckInputs", "TargetResult", "compare_integers", "compare_reals", "not_run"]

IntArray = npt.NDArray[np.int64]
MAX_MISMATCH_RATE = 1e-3
FREE_STEPS = (
    ", because float32 rounds what the integers do not and a network of many layers amplifies it; "
    "`quantization: {exact_steps: true}` makes both equal"
)


@dataclass(frozen=True, eq=False)
class CheckInputs:
    """Images and what the integer reference makes of them.

    Attributes:
        images: Preprocessed images, float32, shape ``(N, C, H, W)``.
        codes: The same as codes, for every `Input` of the graph.
        outputs: The reference's outputs, shape ``(N, *)``.
        scratch: Folder for what a check builds; the caller removes it.
    """

    images: npt.NDArray[np.float32]
    codes: Mapping[str, IntArray]
    outputs: IntArray
    scratch: Path


@dataclass(frozen=True)
class TargetResult:
    """What one target computed, against the integer reference.

    Attributes:
        name: What ran, ``onnxruntime``.
        setting: How, ``int8, level all``.
        state: ``passed``, ``failed``, or ``not run`` where its tools are not installed.
        reason: Why it failed or did not run, and what to install.
        outputs: Numbers compared.
        mismatches: How many differ, in steps of `grid`.
        max_lsb: Largest difference, in steps of `grid`.
        argmax_agreement: Fraction of images with the same class; `None` where nothing ran.
        grid: What a step is: ``exact`` compares the output's integers themselves; ``8 bit``
            compares real outputs on 255 steps over the range of the reference's.
        details: Other facts with their units, ``flash_bytes``.
    """

    name: str
    setting: str
    state: Literal["passed", "failed", "not run"]
    reason: str = ""
    outputs: int = 0
    mismatches: int = 0
    max_lsb: int = 0
    argmax_agreement: float | None = None
    grid: Literal["exact", "8 bit"] = "exact"
    details: Mapping[str, Any] = field(default_factory=dict)


def not_run(name: str, setting: str, reason: str) -> TargetResult:
    """Return the result of a target whose tools are absent."""
    return TargetResult(name, setting, "not run", reason)


def compare_integers(
    name: str,
    setting: str,
    reference: IntArray,
    outputs: npt.NDArray[np.integer],
    details: Mapping[str, Any] | None = None,
    *,
    scores: Callable[[IntArray], npt.NDArray[np.float64]] | None = None,
) -> TargetResult:
    """Compare a target that computes the output's integers: one difference is a failure.

    Args:
        name: Of the target.
        setting: Of the target.
        reference: Outputs of the reference, shape ``(N, *)``.
        outputs: Those of the target, same shape.
        details: Other facts.
        scores: `IntegerGraph.scores`, where classes have steps of their own: the class is the
            one with the largest score.
    """
    integers = outputs.astype(np.int64)
    result = _compare(name, setting, reference, integers, details, is_exact=True)
    if scores is None or result.argmax_agreement is None:
        return result
    agreement = _argmax_agreement(scores(reference), scores(integers))
    return replace(result, argmax_agreement=agreement)


def compare_reals(
    name: str,
    setting: str,
    reference: npt.NDArray[np.float64],
    outputs: npt.NDArray[np.floating],
    details: Mapping[str, Any] | None = None,
) -> TargetResult:
    """Compare a target that computes in floating point, on 255 steps over the reference's range.

    Fails at a thousandth of mismatches, at a difference of two steps, and at one image of another
    class: a runtime that rescales in float32 rounds one in some 100,000 activations to the other
    side, which must not matter.

    Args:
        name: Of the target.
        setting: Of the target.
        reference: Real outputs of the reference, shape ``(N, *)``.
        outputs: Those of the target, same shape.
        details: Other facts.
    """
    spread = float(np.ptp(reference)) if reference.size else 0.0
    step = max(spread / 255, float(np.finfo(np.float32).tiny))
    codes = [np.rint(values.astype(np.float64) / step) for values in (reference, outputs)]
    result = _compare(name, setting, codes[0], codes[1], details, is_exact=False)
    if result.argmax_agreement is None:
        return result
    agreement = _argmax_agreement(reference, outputs)
    result = replace(result, argmax_agreement=agreement)
    if result.state == "passed" and agreement < 1:
        reason = f"{100 * (1 - agreement):.2g} % of the images get another class"
        result = replace(result, state="failed", reason=reason)
    if result.state == "failed":
        result = replace(result, reason=f"{result.reason}{FREE_STEPS}")
    return result


def _compare(
    name: str,
    setting: str,
    reference: npt.NDArray[Any],
    outputs: npt.NDArray[Any],
    details: Mapping[str, Any] | None,
    *,
    is_exact: bool,
) -> TargetResult:
    problem = _incomparable(reference, outputs)
    if problem:
        return TargetResult(name, setting, "failed", problem, details=dict(details or {}))
    difference = np.abs(outputs - reference)
    mismatches, largest = int(np.count_nonzero(difference)), int(difference.max())
    is_near = mismatches < MAX_MISMATCH_RATE * difference.size and largest <= 1
    is_failed = mismatches > 0 and (is_exact or not is_near)
    return TargetResult(
        name=name,
        setting=setting,
        state="failed" if is_failed else "passed",
        reason=f"{mismatches} of {difference.size} outputs differ" if is_failed else "",
        outputs=difference.size,
        mismatches=mismatches,
        max_lsb=largest,
        argmax_agreement=_argmax_agreement(reference, outputs),
        grid="exact" if is_exact else "8 bit",
        details=dict(details or {}),
    )


def _incomparable(reference: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> str:
    """Return why these cannot be compared, empty if they can."""
    if reference.shape != outputs.shape:
        return f"it gave outputs of shape {outputs.shape}, the reference {reference.shape}"
    if not reference.size:
        return "there was no image to compare"
    return "" if np.isfinite(outputs).all() else "some of its outputs are not finite"


def _argmax_agreement(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    first, second = (x.reshape(len(x), -1).argmax(axis=1) for x in (a, b))
    return float((first == second).mean())
