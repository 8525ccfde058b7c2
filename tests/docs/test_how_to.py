"""The commands of the how-to pages are run, in their order, in an empty folder."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
# The pages' own search takes minutes; the rest of the commands is run word for word.
SMALLER = (
    " --trials 4 --set training.epochs=1 --set final.epochs=1 --set final.qaft_epochs=1"
    " --set final.max_networks=1"
)
CERTIFICATE = " --set certificate.images=20 --set certificate.targets=[onnxruntime]"
NO_CERTIFICATE = " --set certificate.enabled=false"
TOOLS = {
    "cortex-m.md": ("make", "cc", "arm-none-eabi-gcc", "qemu-system-arm"),
    "hls4ml.md": (),
    "measured-hardware.md": (),
    "own-hardware.md": (),
    "own-network.md": (),
}
# Into a folder of the test, without asking a registry for anything.
PIP = "pip install --quiet --no-index --no-deps --no-build-isolation --target site"


def blocks_of(page, language):
    text = (HOW_TO / page).read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands_of(page):
    lines = "\n".join(blocks_of(page, "console")).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def files_of(page):
    """Blocks that begin with the name of a file in a comment."""
    found = {}
    for block in blocks_of(page, r"(?:python|toml|yaml)"):
        first, _, text = block.partition("\n")
        if first.startswith("# "):
            found[first.removeprefix("# ")] = text
    return found


def scripts_of(page):
    """Python without the name of a file, to be run after the commands."""
    blocks = [block for block in blocks_of(page, "python") if not block.startswith("# ")]
    return [f"{shlex.quote(sys.executable)} -c {shlex.quote(block)}" for block in blocks]


GIVEN = (
    " --trials 2 --set pretrain.epochs=1 --set training.qaft_epochs=1"
    " --set final.qaft_epochs=1 --set final.max_networks=1"
)


def for_tests(page, command):
    if command.startswith("bitscout search") and page == "own-network.md":
        return command + GIVEN + NO_CERTIFICATE
    if command.startswith("bitscout search"):
        return command + SMALLER + (NO_CERTIFICATE if "hardware" in page else CERTIFICATE)
    return command.replace("pip install", PIP)


def test_every_page_is_run():
    assert {page.name for page in HOW_TO.glob("*.md")} == set(TOOLS)


def test_a_hardware_model_is_a_class_of_under_30_lines():
    source = files_of("own-hardware.md")["my-npu/my_npu.py"]
    lines = source[source.index("@dataclass") :].splitlines()
    assert len(lines) < 30


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(TOOLS))
def test_the_commands_of_a_page_work_one_after_the_other(page, tmp_path):
    missing = [tool for tool in TOOLS[page] if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    for name, text in files_of(page).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path / "site"),
        "OMP_NUM_THREADS": "1",
    }
    commands = commands_of(page)
    assert any(command.startswith("bitscout search") for command in commands)
    for command in [*(for_tests(page, command) for command in commands), *scripts_of(page)]:
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    if page == "cortex-m.md":
        assert "PASS" in done.stdout + done.stderr
