# SPDX-License-Identifier: Apache-2.0
"""Networks as ordinary modules, and the way from a module back to its layers."""

from bitscout.networks.blocks import ConvBnAct, InvertedResidual, same_padding
from bitscout.networks.build import build_network
from bitscout.networks.model_options import Stem
from bitscout.networks.models import build_model, model_names
from bitscout.networks.resnet import resnet
from bitscout.networks.state_dicts import convert_state_dict
from bitscout.networks.trace import trace

__all__ = [
    "ConvBnAct",
    "InvertedResidual",
    "Stem",
    "build_model",
    "build_network",
    "convert_state_dict",
    "model_names",
    "resnet",
    "same_padding",
    "trace",
]
