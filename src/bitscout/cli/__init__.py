# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, call, print. One file a command; the work is done elsewhere.

Nothing heavy is imported before a command runs, so that ``bitscout --help`` answers at once.
"""

from bitscout.cli.app import main

__all__ = ["main"]
