# SPDX-License-Identifier: Apache-2.0
"""Set up a virtual environment with bitscout, without CUDA packages where there is no GPU.

    python3 tools/install.py .venv [--extra dev]

On Linux the default build of PyTorch brings several GB of CUDA libraries. This script asks pip
which file it would take for PyTorch: a CPU build (from a local file, a mirror, or on macOS) is
installed as it is. Otherwise, on a machine without an NVIDIA driver, PyTorch's own index of CPU
builds is used. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

TORCH = "torch==2.13.0"  # What the tests run against; pyproject.toml allows >= 2.6.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MIN_PYTHON = (3, 11)


def main() -> int:
    """Create or complete the environment; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("venv", type=Path, help="folder of the virtual environment")
    parser.add_argument("--extra", action="append", default=[], help="optional group, as `dev`")
    arguments = parser.parse_args()
    if sys.version_info < MIN_PYTHON:
        print(
            f"bitscout needs Python {'.'.join(map(str, MIN_PYTHON))} or newer, this is "
            f"{platform.python_version()}. Name another one: make PYTHON=python3.12 ...",
            file=sys.stderr,
        )
        return 2
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    python = arguments.venv / scripts / "python"
    if not python.exists():
        print(f"Creating {arguments.venv} with Python {platform.python_version()}")
        venv.create(arguments.venv, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    if not has_torch(python):
        install_torch(pip)
    root = Path(__file__).resolve().parent.parent
    extras = f"[{','.join(arguments.extra)}]" if arguments.extra else ""
    print(f"Installing bitscout{extras}")
    subprocess.run([*pip, "install", "--quiet", "--editable", f"{root}{extras}"], check=True)
    return 0


def has_torch(python: Path) -> bool:
    """Say whether the environment has a PyTorch already."""
    probe = [str(python), "-c", "import torch"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def install_torch(pip: list[str]) -> None:
    """Install the right build of PyTorch for this machine."""
    command = [*pip, "install", "--quiet"]
    if shutil.which("nvidia-smi") or sys.platform != "linux" or takes_cpu_build(pip):
        print(f"Installing {TORCH}")
        subprocess.run([*command, TORCH], check=True)
        return
    print(f"Installing {TORCH}, CPU build (there is no NVIDIA driver on this machine)")
    # Dependencies come from the usual index, the build itself from PyTorch's.
    subprocess.run([*command, TORCH, "--index-url", CPU_INDEX], check=True)


def takes_cpu_build(pip: list[str]) -> bool:
    """Say whether the file pip would choose by itself is a build without CUDA."""
    probe = [*pip, "install", "--quiet", "--dry-run", "--no-deps", "--report", "-", TORCH]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return False
    try:
        chosen = json.loads(done.stdout)["install"][0]
    except (ValueError, LookupError):
        return False
    needs = chosen["metadata"].get("requires_dist", [])
    return not any(need.startswith(("nvidia", "cuda")) for need in needs)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        print(f"The step `{' '.join(error.cmd)}` failed; its messages are above.", file=sys.stderr)
        sys.exit(1)
