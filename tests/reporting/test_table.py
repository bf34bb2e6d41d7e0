"""Tables of results: the published table again, what is missing, three formats, the plot, and what no results file may hold."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.errors import TaggantError
from taggant_lightning.reporting.results_file import is_share, read_results, results_of
from taggant_lightning.reporting.sweep_figures import sweep_figure
from taggant_lightning.reporting.table import COUNT, FISHER, HITS, KEY_ACCURACY, SUMMARY, Count, Figure, Hits, Table, table_of
from taggant_lightning.reporting.table_formats import decimals, escaped, formatted, number
from taggant_lightning.statistics import binomial_log10_p

PUBLISHED = {
    "other initialisation": ((8, 9, 9, 9), "87.5 ± 5.0", "−59.6"),
    "other recipe": ((2, 3, 3, 5), "32.5 ± 12.6", "−13.8"),
    "other architecture": ((3, 3, 4, 5), "37.5 ± 9.6", "−16.9"),
    "real keys": ((2, 3, 3, 3), "27.5 ± 5.0", "−10.4"),
}


def repeats(hits: tuple[int, ...], first_seed: int = 200) -> list[dict[str, Any]]:
    """Return repeats as a sweep writes them, top-10 of 1,000 classes."""
    counts = {"num_keys": 10, "top_k": 10, "num_classes": 1000}
    return [
        {"seed": seed, "values": {"accuracy": 0.27 + 0.01 * (seed - first_seed), "hits": h, **counts, "log10_p": p}}
        for seed, h in enumerate(hits, start=first_seed)
        for p in [binomial_log10_p(h, 10, 0.01)]
    ]


def row(name: str, hits: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {"row": name, "factor": None, "published": {}, "repeats": repeats(hits), **more}


def contents(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the content of a results file."""
    return {
        "schema_version": 1,
        "experiment": "scenarios",
        "claim": 1,
        "title": "Four Bobs",
        "profile": "cpu",
        "shared_keys": False,
        "first_seed": 200,
        "repeats": 4,
        "command": "taggant sweep scenarios.yaml --run",
        "hours": 0.8,
        "rows": list(rows) or [row(name, hits) for name, (hits, _, _) in PUBLISHED.items()],
        "unfinished": [],
        "commit": "0123abc",
        "hardware": "2 x a CPU",
        **more,
    }


def table(*rows: dict[str, Any], **more: Any) -> Table:
    return table_of(results_of(contents(*rows, **more), "r.json"))


def cells(markdown: str) -> list[dict[str, str]]:
    """Read a Markdown table."""
    lines = [[c.strip() for c in line.strip("|").split(" | ")] for line in markdown.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_published_table() -> None:
    shown = cells(formatted([table()], "markdown"))
    found = {line["row"]: (line["key accuracy, %"], line["log10 p (Fisher)"]) for line in shown}
    assert found == {name: texts for name, (_, *texts) in PUBLISHED.items() for texts in [tuple(texts)]}
    assert shown[0]["hits"] == "8, 9, 9, 9 of 10"
    assert shown[0]["accuracy, %"] == "28.5 ± 1.3"
    assert shown[0]["n"] == "4"
    assert shown[1]["log10 p (median)"] == "−3.94"


def test_what_is_missing() -> None:
    failed, clean = repeats((2, 3, 3, 5)), repeats((1,))
    failed[1]["values"] = {}
    del failed[3]["values"]["accuracy"]
    clean[0]["values"] = {"accuracy": 0.25, "gap": -0.02, "unknown": None}
    rows = [{**row("failed", ()), "repeats": failed}, {**row("clean", ()), "repeats": clean}]
    made = table(*rows, unfinished=["bob-201", "bob-301"])
    assert made.rows[0][COUNT] == Count(3, 4)
    assert made.rows[0][HITS] == Hits((2, None, 3, 5), (10, None, 10, 10))
    figure = made.rows[0][KEY_ACCURACY]
    assert isinstance(figure, Figure)
    assert (figure.value, figure.count) == (pytest.approx(1 / 3), 3)
    first, second = cells(formatted([made], "markdown"))
    assert first["n"] == "3 of 4"
    assert first["hits"] == "2, –, 3, 5 of 10"
    assert first["accuracy, %"] == "28.0 ± 1.4 (n = 2)"
    assert (second["accuracy, %"], second["gap"], second["hits"], second["log10 p (Fisher)"]) == ("25.0", "−0.0200", "–", "–")
    assert "unknown" not in second
    assert "Commands that did not finish: 2 (bob-201, bob-301)." in made.caption
    assert "did not finish" not in " ".join(table().caption)
    many = table(unfinished=["bob"] * 7).caption
    assert "Commands that did not finish: 7 (bob, bob, bob, bob, bob, …)." in many


def test_shared_keys_have_another_heading() -> None:
    shared = table(shared_keys=True)
    assert SUMMARY in shared.columns
    assert FISHER not in shared.columns
    assert "summary (shared keys)" in formatted([shared], "markdown")
    assert any("not a p-value" in sentence for sentence in shared.caption)
    assert not any("not a p-value" in sentence for sentence in table().caption)
    # Two repeats of one seed have the same keys, in one row only.
    twice = repeats((3, 4))
    twice[1]["seed"] = twice[0]["seed"]
    first, second = cells(formatted([table(row("fresh", (3, 4)), {**row("twice", ()), "repeats": twice})], "markdown"))
    assert first["log10 p (Fisher)"] == second["summary (shared keys)"]
    assert second["log10 p (Fisher)"] == first["summary (shared keys)"] == "–"


def test_shares_are_told_by_their_names() -> None:
    for name in ("accuracy", "key accuracy", "test/acc", "knn_found_at_1", "share_signed", "removed_signed"):
        assert is_share(name), name
    for name in ("mean_cosine", "seconds", "accelerator", "foundation", "auc"):
        assert not is_share(name), name


def test_markdown_and_latex_escape() -> None:
    made = table(row("50 % | a_b & $5 {x}\n−1 \\~^#", (1, 2), published={"log10 p": "-59.6", "name": "a-b"}))
    shown = formatted([made], "markdown")
    assert r"50 % \| a_b & $5 {x} −1" in shown
    assert "| −59.6 | a-b |" in shown
    latex = formatted([made], "latex")
    line = next(line for line in latex.splitlines() if "50" in line)
    assert r"50 \% $|$ a\_b \& \$5 \{x\} $-$1 \textbackslash{}\textasciitilde{}\textasciicircum{}\#" in line
    assert "& $-$59.6 & a-b" in line
    assert r"15.0 $\pm$ 7.1" in line
    assert r"$\log_{10} p$ (Fisher)" in latex
    assert r"\texttt{taggant sweep scenarios.yaml -{}-run}" in latex
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrrrrrll}", r"\label{tab:scenarios}"):
        assert word in latex
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1
    assert latex.replace(r"\{", "").replace(r"\}", "").count("{") == latex.replace(r"\{", "").replace(r"\}", "").count("}")
    assert escaped("≤ 1 – 2") == r"$\leq$ 1 -- 2"


def test_csv_has_all_digits() -> None:
    first, *_ = csv.DictReader(io.StringIO(formatted([table()], "csv")))
    shares = np.array([0.8, 0.9, 0.9, 0.9])
    assert float(first["key_accuracy_mean"]) == pytest.approx(shares.mean(), rel=1e-15)
    assert float(first["key_accuracy_sd"]) == pytest.approx(shares.std(ddof=1), rel=1e-12)
    assert float(first["log10_p_fisher"]) == pytest.approx(-59.60307870262254, rel=1e-15)
    assert (first["n"], first["repeats"], first["hits"], first["num_keys"]) == ("4", "4", "8 9 9 9", "10 10 10 10")
    one, clean = csv.DictReader(io.StringIO(formatted([table(row("one", (3,)), row("none", ()))], "csv")))
    assert one["accuracy_sd"] == ""
    assert clean == {**dict.fromkeys(one, ""), "row": "none", "n": "0", "repeats": "0"}


def test_several_files() -> None:
    other = table(row("eps = 8/255", (3, 4), published={"accuracy": 64}), experiment="bounds", title="Bounds")
    shown = formatted([table(), other], "markdown")
    assert shown.index("### Four Bobs") < shown.index("### Bounds")
    lines = list(csv.DictReader(io.StringIO(formatted([table(), other], "csv"))))
    assert [line["experiment"] for line in lines] == ["scenarios"] * 4 + ["bounds"]
    assert [line["published_accuracy"] for line in lines] == [""] * 4 + ["64"]
    latex = formatted([table(), other], "latex", ["hits", "n"])
    assert r"experiment & row & hits & n \\" in latex
    assert "Four Bobs; Bounds." in latex
    assert "bounds: Profile cpu" in latex


def test_columns_are_chosen() -> None:
    head = formatted([table()], "markdown", ["combined", "row", "key accuracy", "accuracy"]).splitlines()[2]
    assert head == "| row | log10 p (Fisher) | key accuracy, % | accuracy, % |"
    with pytest.raises(TaggantError, match="columns='colour' is in no table; write some of n, accuracy, key_accuracy, hits"):
        formatted([table()], "csv", ["accuracy", "colour"])


def test_hits_of_different_numbers_of_keys_and_a_measured_key_accuracy() -> None:
    runs = repeats((3, 4))
    runs[1]["values"] |= {"num_keys": 20, "key accuracy": 0.9}
    shown = cells(formatted([table({**row("a", ()), "repeats": runs})], "markdown"))[0]
    assert shown["hits"] == "3/10, 4/20"
    assert shown["key accuracy, %"] == "25.0 ± 7.1"  # of the hits


def test_numbers() -> None:
    assert [number(-0.04, 1), number(-12.346, 2), number(0.0, 2)] == ["0.0", "−12.35", "0.00"]
    assert [decimals(size) for size in (0, 1234.5, 12.3, 1, 0.0123, 1e-30)] == [0, 0, 1, 2, 4, 9]


def test_plot() -> None:
    rows = [*contents()["rows"], row("eps = 4/255", (0, 1), factor="eps"), row("costs $5 or $6", (1,), factor="eps")]
    results = results_of(contents(*rows, row("failed", ())), "r.json")
    with Image.open(io.BytesIO(sweep_figure([results], "png"))) as picture:
        assert picture.width > 600
    svg = sweep_figure([results, results], "svg")
    assert svg == sweep_figure([results, results], "svg")
    assert svg.count(b"Four Bobs") == 2  # one panel an experiment, whatever factors its rows vary
    assert b"failed" not in svg
    for text in (b"other architecture", b"log10 p", b"accuracy, %", b"p = 1e-3", b"costs $5 or $6"):
        assert text in svg
    bare = contents(row("a", (1,)))
    bare["rows"][0]["repeats"][0]["values"] = {"seconds": 3}
    with pytest.raises(TaggantError, match="no row has a log10_p or an accuracy to draw; leave --plot out"):
        sweep_figure([results_of(bare, "r.json")], "png")
    bare["rows"][0]["repeats"][0]["values"] = {"accuracy": 0.3}
    assert b"log10 p" not in sweep_figure([results_of(bare, "r.json")], "svg")


def damaged(**values: Any) -> dict[str, Any]:
    content = contents(row("a", (3,)))
    content["rows"][0]["repeats"][0]["values"] |= values
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "r.json has schema_version=None, and this program reads 1; write a results file that `taggant sweep` made"),
        (contents(schema_version=2), "has schema_version=2"),
        ({k: v for k, v in contents().items() if k != "shared_keys"}, "lacks 'shared_keys'; write a results file"),
        (contents(hours=True), "has hours=True, of the wrong type"),
        (contents(rows=[]), "has no measured row; run the experiment first"),
        (contents(row("a", ())), "has no measured row"),
        (contents(rows=["a"]), "holds no JSON object in row 1"),
        (contents({"row": "a", "published": {}, "repeats": []}), r"lacks 'factor' in row 1 \(a\)"),
        (contents({**row("a", ()), "repeats": [{"values": {}}]}), r"lacks 'seed' in a repeat of row 1 \(a\)"),
        (contents({**row("a", ()), "repeats": [{"seed": 3}]}), r"lacks 'values' in row 1 \(a\), seed 3"),
        (damaged(accuracy="high"), r"has accuracy='high' in row 1 \(a\), seed 200, and values are finite numbers"),
        (damaged(accuracy=float("inf")), "values are finite numbers"),
        (damaged(seconds=True), "values are finite numbers"),
        (damaged(accuracy=27.4), r"a share lies in \[0, 1\]"),
        (damaged(log10_p=0.5), "has log10_p=0.5 .* is at most 0"),
        (damaged(hits=3.5), "has hits=3.5 .* that is a whole number"),
        (damaged(hits=11), "has hits=11 and num_keys=10 .* hits lie in 0..num_keys"),
        (damaged(num_keys=0, hits=0), "has hits=0 and num_keys=0"),
    ],
)
def test_refusals(content: dict[str, Any], message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        results_of(content, "r.json")


def test_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"schema_version": 1, "hours": NaN}')
    with pytest.raises(TaggantError, match="is damaged"):
        read_results(tmp_path / "r.json")
    with pytest.raises(TaggantError, match="does not exist"):
        read_results(tmp_path / "none.json")
