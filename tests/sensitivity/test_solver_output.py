# SPDX-License-Identifier: Apache-2.0
"""What a solver prints does not reach standard output; what we print does."""

import ctypes
import os

import pytest

from bitscout.sensitivity.solver_output import discarded_solver_output


def test_only_what_is_written_inside_is_discarded(capfd):
    libc = ctypes.CDLL(None)
    libc.printf(b"before\n")  # Buffered by C where standard output is no terminal.
    with discarded_solver_output():
        os.write(1, b"written\n")
        libc.printf(b"printed\n")
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "before\nafter\n"


def test_standard_output_is_back_after_an_error(capfd):
    with pytest.raises(ValueError, match="on purpose"), discarded_solver_output():
        msg = "on purpose"
        raise ValueError(msg)
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"
