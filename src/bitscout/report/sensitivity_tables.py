# SPDX-License-Identifier: Apache-2.0
"""How sensitive each layer is, for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bitscout.pipeline import SensitivityReport

__all__ = ["agreement_sentences", "cluster_name", "sensitivity_table"]

_SCORES = {
    "trace_per_weight": "trace per weight",
    "expected_loss": "trace per weight times squared error",
}


def sensitivity_table(report: SensitivityReport) -> RenderableType:
    """Return a row for each layer, and what to know about the figures."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for heading in ("trace", "+-", "weights", "trace/weight"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("cluster", no_wrap=True)
    table.add_column("bits", no_wrap=True)
    if report.drop_bits is not None:
        table.add_column(f"drop at {report.drop_bits} bits", justify="right", no_wrap=True)
    for row in report.layers:
        cells: list[RenderableType] = [
            Text(row.name),
            f"{row.trace:.4g}",
            f"{row.standard_error:.2g}",
            f"{row.n_weights:,}",
            f"{row.trace_per_weight:.3g}",
            cluster_name(row.cluster),
            " ".join(map(str, reversed(row.bits))),
        ]
        if row.accuracy_drop is not None:
            cells.append(f"{100 * row.accuracy_drop:.1f} %")
        table.add_row(*cells)
    said = (
        f"{report.n_images} images of {report.dataset}, {report.estimator}, "
        f"{report.seconds:.1f} s. Cluster A is the most sensitive; bits are those that pruning "
        f"by clusters leaves."
    )
    lines = [Text(line) for line in agreement_sentences(report)]
    lines += [Text(f"Note: {note}", style="dim") for note in report.notes]
    return Group(
        Text.assemble("Sensitivity of ", (report.network, "bold")),
        Text(said),
        "",
        table,
        *([Text(), *lines] if lines else []),
    )


def cluster_name(cluster: int) -> str:
    """Return ``A`` for the most sensitive cluster, ``B`` for the next."""
    return chr(ord("A") + cluster) if cluster < 26 else str(cluster)


def agreement_sentences(report: SensitivityReport) -> list[str]:
    """Return how well scores order the layers by their measured drops."""
    sentences = []
    for cost, scores in report.agreement.items():
        said = [
            f"{_SCORES[name]} {found.spearman:.2f} ({found.low:.2f} to {found.high:.2f})"
            for name, found in scores.items()
        ]
        sentences.append(
            f"Rank correlation (Spearman, 95 % interval) of the measured {cost.replace('_', ' ')} "
            f"with: {'; '.join(said)}."
        )
    return sentences
