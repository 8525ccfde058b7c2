# SPDX-License-Identifier: Apache-2.0
"""``python -m bitscout``: the same as ``bitscout``."""

import sys

from bitscout.cli import main

if __name__ == "__main__":
    sys.exit(main())
