# SPDX-License-Identifier: Apache-2.0
"""Certificates and exported files as a person reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bitscout.errors import RunError
from bitscout.export import Certificate, TargetResult
from bitscout.pipeline import RunResult
from bitscout.report.rows import ABSENT, format_percent

if TYPE_CHECKING:
    from bitscout.export import Exported

__all__ = [
    "TargetRow",
    "best_certificate",
    "best_name",
    "certificate_summary",
    "certificate_table",
    "certificate_words",
    "exported_lines",
    "size_sentences",
    "target_rows",
]

STATE_STYLES = {"passed": "green", "failed": "bold red", "not run": "yellow"}


@dataclass(frozen=True, slots=True)
class TargetRow:
    """One target of a certificate, formatted.

    Attributes:
        target: What ran, and how.
        state: ``passed``, ``failed`` or ``not run``.
        outputs: Numbers compared.
        mismatches: How many differ.
        max_lsb: Largest difference in steps.
        argmax: Images with the same class, in percent.
        remark: Why it failed or did not run, or what else was measured.
    """

    target: str
    state: str
    outputs: str
    mismatches: str
    max_lsb: str
    argmax: str
    remark: str


def best_name(result: RunResult) -> str:
    """Return the name of the run's best final network.

    Raises:
        RunError: If there is no final network yet.
    """
    best = result.best_final
    if best is None:
        msg = (
            f"{result.directory} has no final network yet. Let the run finish: "
            f"bitscout resume {result.directory}"
        )
        raise RunError(msg)
    return best.name


def best_certificate(result: RunResult) -> Certificate | None:
    """Return the certificate of the best final network, `None` before there is one."""
    best = result.best_final
    return None if best is None else result.certificates.get(best.name)


def certificate_words(certificate: Certificate) -> str:
    """Return the certificate in a few words: ``verified, 9 targets; Cortex-M not run``."""
    if not certificate.passed:
        failed = certificate.failures
        what = failed[0].reason if failed else "the packed size is not the predicted one"
        name = f"{failed[0].name}: " if failed else ""
        return f"verification FAILED, {name}{what}"
    words = f"verified, {certificate.n_passed} targets passed"
    return f"{words}, {certificate.n_not_run} not run" if certificate.n_not_run else words


def certificate_summary(certificate: Certificate) -> str:
    """Return the verdict of a certificate: what goes behind its subject."""
    count = len(certificate.targets) - certificate.n_not_run
    if certificate.passed:
        return f"passed on all {count} targets that could run here."
    n_failed = len(certificate.failures)
    if n_failed:
        return f"FAILED on {n_failed} of {count} targets."
    return "FAILED, the packed file does not hold the predicted bits."


def size_sentences(certificate: Certificate) -> list[str]:
    """Return what the files weigh, and the accuracy of the integers, a sentence each."""
    predicted = certificate.predicted_bytes
    sentences = []
    if certificate.files:
        excess = certificate.packed_bytes - predicted
        sentences.append(
            f"Searched size {_count(predicted)} bytes, packed weights and biases "
            f"{certificate.packed_bytes:,} bytes ({100 * excess / predicted:+.2f} %: every "
            "layer's bits are rounded up to bytes)."
        )
    sentences += [
        f"{file.name}: {file.file_bytes:,} bytes, {file.payload_bytes:,} of them weights and "
        f"biases; the rest is {file.rest}."
        for file in certificate.files
    ]
    if certificate.n_test_images and certificate.network_accuracy is not None:
        sentences.append(
            f"Accuracy of the integers on all {certificate.n_test_images:,} test images: "
            f"{format_percent(certificate.integer_accuracy)} %, of the network in PyTorch "
            f"{format_percent(certificate.network_accuracy)} %."
        )
    return sentences


def target_rows(certificate: Certificate) -> list[TargetRow]:
    """Return the rows of the certificate's table."""
    return [_target_row(target) for target in certificate.targets]


def certificate_table(certificate: Certificate) -> RenderableType:
    """Return the certificate for the terminal."""
    table = Table(
        title=f"Certificate of network {certificate.candidate}",
        title_justify="left",
        title_style="bold",
        caption="differ: outputs unlike the integer reference's; steps: largest difference;\n"
        "class %: images given the same class",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("target", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("outputs", "differ", "steps", "class %"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = target_rows(certificate)
    for row in rows:
        state = Text(row.state, style=STATE_STYLES[row.state])
        cells = (row.outputs, row.mismatches, row.max_lsb, row.argmax)
        table.add_row(row.target, state, *cells)
    remarks = [Text(f"{row.target}: {row.remark}.") for row in rows if row.remark]
    lines = [Text(line) for line in size_sentences(certificate)]
    style = "bold green" if certificate.passed else "bold red"
    summary = Text(f"Certificate {certificate_summary(certificate)}", style=style)
    return Group(table, "", *remarks, *lines, summary)


def exported_lines(name: str, exported: Exported) -> list[str]:
    """Return what ``export`` prints."""
    searched = f"{_count(exported.predicted_bytes)} bytes of weights and biases were searched"
    what = "bytes of sources and what was built" if exported.format == "c" else "bytes"
    lines = [
        f"Network {name} as {exported.format}: {exported.path}",
        f"{exported.file_bytes:,} {what}; {searched}.",
    ]
    if exported.format == "c":
        lines.append(f"Test it with: make -C {exported.path} test")
    return lines


def _count(size_bytes: float) -> str:
    return f"{size_bytes:,.3f}".rstrip("0").rstrip(".")


def _target_row(target: TargetResult) -> TargetRow:
    name = f"{target.name}, {target.setting}" if target.setting else target.name
    if target.state == "not run":
        return TargetRow(name, "not run", ABSENT, ABSENT, ABSENT, ABSENT, target.reason)
    agreement = target.argmax_agreement
    return TargetRow(
        target=name,
        state=target.state,
        outputs=f"{target.outputs:,}",
        mismatches=f"{target.mismatches:,}",
        max_lsb=f"{target.max_lsb:,}",
        argmax=ABSENT if agreement is None else f"{100 * agreement:.1f}",
        remark=target.reason or _details(target),
    )


def _details(target: TargetResult) -> str:
    details = target.details
    parts = ["on 8-bit steps"] if target.grid == "8 bit" else []
    if "flash_bytes" in details:
        parts.append(f"flash {details['flash_bytes']:,} B")
        parts.append(f"RAM with stack {details['ram_bytes']:,} B")
        parts.append(f"{details['instructions']:,} instructions an image")
        parts.append(f"{details['instructions_per_mac']:.1f} per MAC")
    elif "arena_bytes" in details:
        parts.append(f"RAM {details['arena_bytes']:,} B")
        parts.append(f"weights {details['weight_bytes']:,} B")
    elif "weight_bits" in details:
        parts.append(f"counts {details['weight_bits']:,} weight bits")
    return ", ".join(parts)
