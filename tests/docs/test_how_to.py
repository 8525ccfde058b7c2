"""The commands of the how-to pages are run, in their order, in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
# The pages' own search takes minutes; the rest of the commands is run word for word.
SMALLER = (
    " --trials 4 --set training.epochs=1 --set final.epochs=1 --set final.qaft_epochs=1"
    " --set certificate.images=20 --set certificate.targets=[onnxruntime]"
)
TOOLS = {"cortex-m.md": ("make", "cc", "arm-none-eabi-gcc", "qemu-system-arm"), "hls4ml.md": ()}


def commands_of(page):
    blocks = re.findall(r"```console\n(.*?)```", (HOW_TO / page).read_text("utf-8"), re.DOTALL)
    lines = "\n".join(blocks).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def test_every_page_is_run():
    assert {page.name for page in HOW_TO.glob("*.md")} == set(TOOLS)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(TOOLS))
def test_the_commands_of_a_page_work_one_after_the_other(page, tmp_path):
    missing = [tool for tool in TOOLS[page] if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    commands = commands_of(page)
    assert commands[0].startswith("bitscout search")
    for command in [commands[0] + SMALLER, *commands[1:]]:
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    if page == "cortex-m.md":
        assert "PASS" in done.stdout + done.stderr
