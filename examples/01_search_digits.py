# SPDX-License-Identifier: Apache-2.0
"""Search a few small networks for handwritten digits, list them, and load the smallest.

    python examples/01_search_digits.py

BITSCOUT_EXAMPLE_BUDGET is the number of candidates; 8 by default, about half a minute.
"""

import os
import tempfile
from pathlib import Path

import bitscout

with tempfile.TemporaryDirectory() as folder:
    result = bitscout.search(
        "quickstart",
        out=Path(folder) / "run",
        settings={
            "searcher.n_trials": int(os.environ.get("BITSCOUT_EXAMPLE_BUDGET", "8")),
            "space.repetitions": [0, 1],
            "final.epochs": 8,
            "final.max_networks": 2,
        },
    )
    for network in (*result.final, *result.baselines):
        accuracy, size = network.metrics["test_accuracy"], network.metrics["size_bytes"]
        print(f"{network.label:35} {100 * accuracy:5.1f} % {size / 1000:7.2f} kB")
    for verdict in result.verdicts:
        print(verdict.sentence())
    model = result.load(result.final[0].name)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, ready to run")
