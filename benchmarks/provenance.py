# SPDX-License-Identifier: Apache-2.0
"""Where a figure comes from: commit, hardware, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def provenance(
    packages: tuple[str, ...] = ("numpy", "scipy", "optuna", "torch"),
) -> dict[str, str]:
    """Return one column each for commit, processor, cores, Python and the packages' versions."""
    columns = {
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "unset"),
        "python": platform.python_version(),
    }
    return columns | {name: version(name) for name in packages}


def _commit() -> str:
    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
