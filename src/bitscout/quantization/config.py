# SPDX-License-Identifier: Apache-2.0
"""How a network is quantized, apart from its bit-widths."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitscout.errors import ConfigError
from bitscout.quantization.observers import (
    ActivationObserver,
    ByWidthActivationObserver,
    ByWidthObserver,
    LayerOutputObserver,
    MaxAbsObserver,
    MinMaxObserver,
    PercentileObserver,
    WeightObserver,
)

__all__ = ["QuantConfig"]


def _default_weight_observer() -> WeightObserver:
    return ByWidthObserver(narrow=LayerOutputObserver(), wide=MaxAbsObserver(), threshold=4)


def _default_act_observer() -> ActivationObserver:
    return ByWidthActivationObserver(
        narrow=PercentileObserver(99.99), wide=MinMaxObserver(), threshold=8
    )


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """Everything `prepare` needs besides the policy.

    The defaults are measured: docs/adr/0004-quantizer-defaults.md.

    Attributes:
        weight_observer: Chooses the step of every output channel.
        act_observer: Chooses the step of every activation tensor.
        bias_correction: Match the mean of every layer's output on the calibration images.
        learn_weight_steps: Make the weights' steps parameters, trained by LSQ in QAFT. Pays at 2
            bits after three epochs; no better, or worse, after one.
        learn_act_steps: Make the activations' steps parameters, trained by LSQ in QAFT. A training
            step then takes 2.15 times a real one instead of 0.8 to 1.1.
        exact_steps: Give activations steps of powers of two and weights steps of few mantissa
            bits, so that float32, and with it PyTorch and ONNX Runtime, computes exactly the
            integers that are exported. Learned steps are rounded to such in every forward
            pass; the gradient goes straight through.
        add_bits: Bits of both operands of every `Add`, in ``[2, 8]``.
        pool_bits: Bits of the input of every average pool, in ``[2, 8]``.
        norm_bits: Bits of weights and input of every batch norm that no layer absorbs, in
            ``[2, 8]``.

    Raises:
        ConfigError: If a bit-width is outside ``[2, 8]``.
    """

    weight_observer: WeightObserver = field(default_factory=_default_weight_observer)
    act_observer: ActivationObserver = field(default_factory=_default_act_observer)
    bias_correction: bool = True
    learn_weight_steps: bool = False
    learn_act_steps: bool = False
    exact_steps: bool = True
    add_bits: int = 8
    pool_bits: int = 8
    norm_bits: int = 8

    def __post_init__(self) -> None:
        """Reject bit-widths no layer can have."""
        for name in ("add_bits", "pool_bits", "norm_bits"):
            bits = getattr(self, name)
            if not 2 <= bits <= 8:
                msg = f"`{name}` must be in [2, 8], got {bits}."
                raise ConfigError(msg)
