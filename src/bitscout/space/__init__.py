# SPDX-License-Identifier: Apache-2.0
"""What may be chosen: search spaces, described and counted without building a network."""

from bitscout.space.base import Architecture, IndexArray, SearchSpace
from bitscout.space.bomp import BompSpace
from bitscout.space.bomp_table import BOMP_WIDTHS
from bitscout.space.choice import Choice, ChoiceKind
from bitscout.space.layer_table import ADD, CONV, DEPTHWISE, LINEAR, LayerTable, LayerVariants
from bitscout.space.mobilenet_spec import (
    STEM_KERNEL,
    BlockSpec,
    MobileNetSpec,
    UnitSpec,
    round_channels,
)
from bitscout.space.model import ModelArchitecture, ModelSpace, NetworkBuilder
from bitscout.space.model_description import (
    FIXED_BITS,
    Axis,
    ChannelGroup,
    GivenLayer,
    GivenNode,
    GivenWeight,
    ModelDescription,
    Segment,
)
from bitscout.space.summary import LayerState, LayerSummary, SpaceSummary

__all__ = [
    "ADD",
    "BOMP_WIDTHS",
    "CONV",
    "DEPTHWISE",
    "FIXED_BITS",
    "LINEAR",
    "STEM_KERNEL",
    "Architecture",
    "Axis",
    "BlockSpec",
    "BompSpace",
    "ChannelGroup",
    "Choice",
    "ChoiceKind",
    "GivenLayer",
    "GivenNode",
    "GivenWeight",
    "IndexArray",
    "LayerState",
    "LayerSummary",
    "LayerTable",
    "LayerVariants",
    "MobileNetSpec",
    "ModelArchitecture",
    "ModelDescription",
    "ModelSpace",
    "NetworkBuilder",
    "SearchSpace",
    "Segment",
    "SpaceSummary",
    "UnitSpec",
    "round_channels",
]
