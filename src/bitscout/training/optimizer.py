# SPDX-License-Identifier: Apache-2.0
"""The optimizer of a phase."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bitscout.errors import ConfigError
from bitscout.quantization import learned_steps, parameter_groups
from bitscout.training.recipe import Phase

__all__ = ["make_optimizer", "set_lr"]

ADAM_BETA_2 = 0.999  # PyTorch's.


def make_optimizer(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """Return a fresh optimizer of all that can be trained; `set_lr` sets its rates.

    Weight decay is for weights alone. Each group has a ``share`` of the learning rate: 1 but for
    quantizers' steps under Adam.

    Args:
        model: What to train.
        phase: Optimizer, momentum and weight decay.

    Raises:
        ConfigError: If no parameter of the model can be trained.
    """
    weights, others = parameter_groups(model)
    if not weights and not others:
        msg = "The network has no trainable parameters."
        raise ConfigError(msg)
    is_adam = phase.optimizer == "adam"
    # NOTE: Adam moves every parameter by about its rate, whatever its size, and a quantizer's step
    # may be smaller than that. So its rate is relative there.
    relative = {id(step) for step in learned_steps(model)} if is_adam else set()
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": phase.weight_decay, "share": 1.0},
        {
            "params": [p for p in others if id(p) not in relative],
            "weight_decay": 0.0,
            "share": 1.0,
        },
        *(
            {"params": [p], "weight_decay": 0.0, "share": float(p.detach().abs().mean())}
            for p in others
            if id(p) in relative
        ),
    ]
    groups = [group for group in groups if group["params"]]
    if is_adam:
        betas = (phase.momentum, ADAM_BETA_2)
        return torch.optim.Adam(groups, lr=phase.peak_lr, betas=betas, fused=True)
    return torch.optim.SGD(
        groups,
        lr=phase.peak_lr,
        momentum=phase.momentum,
        nesterov=True,
        fused=True,  # Up to 13 % of a small step, else within noise: benchmarks/training_loop.py.
    )


def set_lr(optimizer: torch.optim.Optimizer, phase: Phase, progress: float) -> None:
    """Set the learning rate of the moment `progress`, in ``[0, 1]``."""
    for group in optimizer.param_groups:
        group["lr"] = group["share"] * phase.peak_lr * phase.schedule(progress)
