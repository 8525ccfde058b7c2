# SPDX-License-Identifier: Apache-2.0
"""Networks as ordinary modules, and the way from a module back to its layers."""

from bitscout.networks.batch_norm import recalibrate_batch_norm
from bitscout.networks.blocks import ConvBnAct, InvertedResidual, same_padding
from bitscout.networks.build import build_network
from bitscout.networks.checkpoints import load_checkpoint
from bitscout.networks.describe import check_classes, describe
from bitscout.networks.given import GivenNetwork
from bitscout.networks.importance import Importance, channel_importance
from bitscout.networks.load_model import load_model
from bitscout.networks.model_options import Stem
from bitscout.networks.models import build_model, model_names
from bitscout.networks.resize import resize
from bitscout.networks.resnet import resnet
from bitscout.networks.state_dicts import convert_state_dict
from bitscout.networks.trace import trace

__all__ = [
    "ConvBnAct",
    "GivenNetwork",
    "Importance",
    "InvertedResidual",
    "Stem",
    "build_model",
    "build_network",
    "channel_importance",
    "check_classes",
    "convert_state_dict",
    "describe",
    "load_checkpoint",
    "load_model",
    "model_names",
    "recalibrate_batch_norm",
    "resize",
    "resnet",
    "same_padding",
    "trace",
]
