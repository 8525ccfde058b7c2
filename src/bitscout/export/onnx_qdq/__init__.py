# SPDX-License-Identifier: Apache-2.0
"""ONNX with QuantizeLinear and DequantizeLinear nodes: the form every runtime reads."""

from __future__ import annotations

from bitscout.export.onnx_qdq.payload import OnnxPayload, onnx_payload
from bitscout.export.onnx_qdq.write import onnx_model, write_onnx

__all__ = ["OnnxPayload", "onnx_model", "onnx_payload", "write_onnx"]
