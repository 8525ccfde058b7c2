# SPDX-License-Identifier: Apache-2.0
"""Claim: `bitscout search quickstart` takes under 5 minutes on 2 cores.

    python benchmarks/quickstart.py

One whole search in a fresh process, written to results/quickstart.csv with its outcome.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from training_results import write_rows

LIMIT_SECONDS = 300


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            command = ["bitscout", "search", "quickstart", "--out", str(Path(folder) / "run")]
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", *command, "--seed", str(seed), "--json", "--quiet"],
                capture_output=True,
                text=True,
                check=True,
            )
            seconds = time.perf_counter() - start
        result = json.loads(done.stdout)
        small = [n["metrics"] for n in result["final"] if n["metrics"]["size_bytes"] <= 10_000]
        best = max((metrics["test_accuracy"] for metrics in small), default=0.0)
        rows.append(
            {
                "seed": seed,
                "seconds": round(seconds, 1),
                "n_final": len(result["final"]),
                "best_test_accuracy_under_10_kb": best,
            }
        )
        verdict = "holds" if seconds < LIMIT_SECONDS else "does NOT hold"
        print(f"seed {seed}: {seconds:.0f} s, {100 * best:.1f} % under 10 kB; the claim {verdict}")
        write_rows("quickstart", rows)


if __name__ == "__main__":
    main()
