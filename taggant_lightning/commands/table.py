"""`taggant table`: tables and plots of the results that experiments have written."""

import argparse
from pathlib import Path

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_paths, write_atomic
from taggant_lightning.outside import say
from taggant_lightning.reporting.results_file import read_results
from taggant_lightning.reporting.table import table_of
from taggant_lightning.reporting.table_formats import STYLES, SUFFIXES, formatted

PLOTS = (".png", ".svg")
_EPILOG = """examples:
  taggant table results.json
  taggant table a.json b.json --out tables.tex --plot figure.png --plot figure.svg
  taggant table results.json --columns n,accuracy,hits,combined

columns: n, the repeats; every value that was measured, mean ± sample standard deviation over the repeats, in per cent where a
word of its name is accuracy, acc, share or found; key_accuracy, hits over keys; hits; median, of log10 p; combined, by Fisher's
method, which is a p-value only where each repeat has keys of its own (else it is headed as a summary); published.
Several files make a table each in Markdown, and one with a leading column in CSV and LaTeX. CSV has shares of one, all digits,
and NAME_mean, NAME_sd and NAME_n, the repeats that gave them.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taggant table",
        description="Tables and plots of experiments' results.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="files that `taggant sweep` has written")
    parser.add_argument("--format", choices=list(STYLES), help="how to write the table (markdown, or as --out ends)")
    parser.add_argument("--out", metavar="FILE", help=f"file to write, ending in {', '.join(SUFFIXES)}, in place of the screen")
    parser.add_argument("--columns", metavar="A,B,…", help="the columns to show, in this order")
    parser.add_argument("--plot", action="append", default=[], metavar="FILE", help="also draw: .png or .svg; may be repeated")
    return parser


def run(words: list[str]) -> None:
    """Run `taggant table`."""
    arguments = _parser().parse_args(words[1:])
    given_paths(arguments, "results", "out", "plot")
    style = _style(arguments.format, arguments.out)
    plots = [_plot(name) for name in arguments.plot]
    results = [read_results(Path(name)) for name in arguments.results]
    wanted = None if arguments.columns is None else arguments.columns.split(",")
    text = formatted([table_of(one) for one in results], style, wanted)
    drawn = []
    if plots:
        from taggant_lightning.reporting.sweep_figures import sweep_figure

        drawn = [sweep_figure(results, path.suffix[1:]) for path in plots]
    for path, content in zip(plots, drawn, strict=True):
        write_atomic(path, content)
    if arguments.out is None:
        for line in text.removesuffix("\n").split("\n"):
            say(line, limit=None)
    else:
        write_atomic(Path(arguments.out), text.encode())


def _style(wanted: str | None, out: str | None) -> str:
    """Return the style asked for, or that of the file's ending."""
    if out is None:
        return wanted or "markdown"
    path = Path(out)
    _require_folder("out", path)
    ending = SUFFIXES.get(path.suffix)
    if ending is None:
        raise TaggantError(f"out={out} ends in none of {', '.join(SUFFIXES)}; write a file name that ends so")
    if wanted not in (None, ending):
        raise TaggantError(f"format={wanted} does not suit out={out}, which ends as {ending}; leave --format out")
    return ending


def _plot(name: str) -> Path:
    path = Path(name)
    if path.suffix not in PLOTS:
        raise TaggantError(f"plot={name} ends in none of {', '.join(PLOTS)}; write a file name that ends so")
    _require_folder("plot", path)
    return path


def _require_folder(argument: str, path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise TaggantError(f"{argument}={path} cannot be written; write a file in a folder that exists")
