"""`taggant table`: to the screen and into files, which are whole or not there, and one sentence for what is wrong."""

import json
from pathlib import Path

import pytest

from taggant_lightning.cli import main
from tests.reporting.test_table import contents, row


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(contents()))
    return path


def test_screen(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(results)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("### Four Bobs\n\n| row | n | accuracy, % |")
    assert "Profile cpu: 4 repeats from seed 200, 0.8 hours on 2 x a CPU, commit 0123abc." in shown
    assert main(["table", str(results), "--format", "csv", "--columns", "hits,combined"]) == 0
    assert capsys.readouterr().out.startswith("row,hits,num_keys,log10_p_fisher,log10_p_fisher_n\n")
    with pytest.raises(SystemExit):
        main(["table", "--help"])
    assert "usage: taggant table" in capsys.readouterr().out


def test_files(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(contents(row("eps = 8/255", (3, 4), factor="eps"), experiment="bounds", title="Bounds")))
    plots = ["--plot", str(tmp_path / "p.png"), "--plot", str(tmp_path / "p.svg")]
    for name, start in (("t.md", "### Four Bobs"), ("t.csv", "experiment,row,n,repeats"), ("t.tex", r"% needs \usepackage")):
        assert main(["table", str(results), str(other), "--out", str(tmp_path / name), *plots]) == 0
        assert (tmp_path / name).read_text().startswith(start)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert b"eps = 8/255" in (tmp_path / "p.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "t.txt"], "out=t.txt ends in none of .md, .csv, .tex; write a file name that ends so"),
        (["--out", "t.md", "--format", "csv"], "format=csv does not suit out=t.md, which ends as markdown; leave --format out"),
        (["--out", "no/t.md"], "out=no/t.md cannot be written; write a file in a folder that exists"),
        (["--plot", "p.pdf"], "plot=p.pdf ends in none of .png, .svg; write a file name that ends so"),
        (["--plot", "no/p.png"], "plot=no/p.png cannot be written"),
        (["--plot", "p.png", "--columns", "colour"], "columns='colour' is in no table"),
        (["none.json", "--plot", "p.png"], "results: none.json does not exist"),
        (["damaged.json", "--out", "t.md"], "results: damaged.json is damaged"),
    ],
)
def test_refusals(
    words: list[str],
    message: str,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.json").write_text("{")
    before = sorted(tmp_path.iterdir())
    assert main(["table", str(results), *words]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
