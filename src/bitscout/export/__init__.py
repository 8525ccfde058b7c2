# SPDX-License-Identifier: Apache-2.0
"""From a quantized network to integers, and from those to files that compute the same."""
