# SPDX-License-Identifier: Apache-2.0
"""Table, chart and page of sensitivities."""

import json
import math
import re

import pytest
from rich.console import Console

from bitscout.errors import ConfigError
from bitscout.pipeline import LayerRow, SensitivityReport
from bitscout.report import sensitivity_table, write_sensitivity_page
from bitscout.report.sensitivity_chart import sensitivity_chart
from bitscout.sensitivity import RankAgreement


def row(name, cluster, bits, trace, error=0.5, drop=None):
    return LayerRow(name, name, cluster, bits, trace, error, 10, trace / 10, None, drop, drop)


def report(rows=None, drop_bits=2):
    rows = rows or (
        row("stem", 0, (6, 8), 40.0, drop=0.01),
        row("a</script>", 1, (3, 4, 6), 4.0, drop=0.02),
        row("b", 2, (2, 3), -0.1, drop=-0.001),
        row("fc", 0, (6, 8), 20.0, drop=0.0),
    )
    agreement = {"accuracy_drop": {"trace_per_weight": RankAgreement(0.5, -0.1, 0.8, 4)}}
    return SensitivityReport(
        "net", "digits", "gauss-newton", 512, 1.25, rows, drop_bits, agreement, ("Mind this.",)
    )


def printed(renderable):
    console = Console(width=140, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_table_has_a_row_for_each_layer_and_says_what_was_found():
    text = printed(sensitivity_table(report()))
    assert re.search(r"stem +40 +0\.5 +10 +4 +A +8 6 +1\.0 %", text)
    assert re.search(r"b +-0\.1 +0\.5 +10 +-0\.01 +C +3 2 +-0\.1 %", text)
    assert "drop at 2 bits" in text
    assert "measured accuracy drop with: trace per weight 0.50 (-0.10 to 0.80)." in text
    assert "Note: Mind this." in text


def test_the_chart_has_traces_errors_and_bits_in_the_clusters_colour():
    chart = sensitivity_chart(report())
    marks = [d for d in chart["data"] if "error_y" in d]
    assert [d["x"] for d in marks] == [["stem", "fc"], ["a</script>"], ["b"]]
    assert marks[0]["y"] == [4.0, 2.0]
    assert marks[0]["error_y"]["array"] == [0.05, 0.05]
    assert len({d["marker"]["color"] for d in marks}) == 3
    bits = [d for d in chart["data"] if d.get("yaxis") == "y2"]
    assert list(zip(bits[1]["x"], bits[1]["y"], strict=True)) == [
        ("a</script>", "3"), ("a</script>", "4"), ("a</script>", "6"),
    ]  # fmt: skip
    assert chart["layout"]["yaxis2"]["categoryarray"] == ["2", "3", "4", "6", "8"]


def test_traces_below_zero_are_hollow_and_bars_end_above_zero():
    chart = sensitivity_chart(report())
    hollow = [d for d in chart["data"] if "error_y" in d][2]
    assert hollow["marker"]["symbol"] == ["circle-open"]
    assert hollow["y"][0] > 0
    assert hollow["error_y"]["arrayminus"][0] < hollow["y"][0]
    low, _ = chart["layout"]["yaxis"]["range"]
    assert math.isclose(10**low, hollow["y"][0])


def test_a_network_without_curvature_still_has_a_picture():
    chart = sensitivity_chart(report((row("only", 0, (2, 8), 0.0, 0.0),), drop_bits=None))
    assert all(math.isfinite(end) for end in chart["layout"]["yaxis"]["range"])


def test_the_page_holds_all_figures_and_escapes_names(tmp_path):
    path = write_sensitivity_page(report(), tmp_path / "s.html")
    page = path.read_text(encoding="utf-8")
    document = re.search(r'id="bitscout-result">(.*?)</script>', page, re.S).group(1)
    assert json.loads(document)["layers"][1]["name"] == "a</script>"
    assert "a&lt;/script&gt;" in page
    assert "cluster B: 6, 4, 3 bits, 1 layer" in page


def test_other_files_than_pages_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.html, got .*s\.png"):
        write_sensitivity_page(report(), tmp_path / "s.png")
