# SPDX-License-Identifier: Apache-2.0
"""Running the files and comparing what they compute with the integer reference."""
