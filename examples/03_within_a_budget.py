# SPDX-License-Identifier: Apache-2.0
"""Search networks for handwritten digits that take at most 20 uJ on Bit Fusion and 3 kB of RAM.

    python examples/03_within_a_budget.py

BITSCOUT_EXAMPLE_BUDGET is the number of candidates; 8 by default, about half a minute.
"""

import os
import tempfile
from pathlib import Path

import bitscout

# The network every search begins with, at 8 bits: far too dear.
(report,) = bitscout.cost("quickstart", "bitfusion").reports
print(f"seed network: {1000 * report.total['energy_mj']:.1f} uJ, {report.hardware}")

with tempfile.TemporaryDirectory() as folder:
    result = bitscout.search(
        "quickstart",
        out=Path(folder) / "run",
        settings={
            "hardware": ["bitfusion", "mcu"],
            "budget": {"energy_mj": 0.02, "peak_memory_kb": 3},
            "objective.front": ["accuracy", "size_bytes", "energy_mj"],
            "searcher.n_trials": int(os.environ.get("BITSCOUT_EXAMPLE_BUDGET", "8")),
            "training.epochs": 4,
            "final.epochs": 6,
            "final.max_networks": 1,
            "certificate.enabled": False,
        },
    )
    for trial in result.trials:
        if trial.outcome == "infeasible":
            print(f"trial {trial.number} was not trained: {trial.reason}")
        else:
            accuracy = 100 * trial.metrics["val_accuracy"]
            energy, memory = 1000 * trial.metrics["energy_mj"], trial.metrics["peak_memory_bytes"]
            print(f"trial {trial.number}: {accuracy:.1f} %, {energy:.1f} uJ, {memory} bytes")
    print(f"on the front: {', '.join(map(str, result.pareto_front))}")
