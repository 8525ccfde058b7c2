# SPDX-License-Identifier: Apache-2.0
"""What every section of a configuration is, and the numbers in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BitWidth", "NonNegativeInt", "PositiveFloat", "PositiveInt", "Section"]

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BitWidth = Annotated[int, Field(ge=2, le=8)]


class Section(BaseModel):
    """Known keys only, of the right type, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
