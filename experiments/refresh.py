"""Write the tables of the READMEs here anew from the committed results, so that no figure is copied by hand.

    python experiments/refresh.py            # after `taggant sweep … --results experiments/NAME/results.json`
    python experiments/refresh.py --check    # say which README is out of date, and change nothing; what a test runs

A README holds the output of a command between `<!-- taggant table … -->` and `<!-- end -->`; this folder's own README a row a
claim between `<!-- claims -->` and `<!-- end -->`.
"""

import argparse
import contextlib
import io
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from taggant_lightning.commands.table import run
from taggant_lightning.reporting.results_file import read_results
from taggant_lightning.reporting.table import table_of
from taggant_lightning.reporting.table_formats import texts

HERE = Path(__file__).parent
BLOCK = re.compile(r"(<!-- (taggant table [^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
CLAIMS = re.compile(r"(<!-- claims -->\n).*?(<!-- end -->)", re.DOTALL)
# What a row of the claims' table shows: the rows of an experiment's own table, and its columns.
SHOWN: dict[str, tuple[list[str], list[str]]] = {
    "scenarios": (
        ["other initialisation", "+ other augmentation and recipe", "+ other architecture", "clean"],
        ["key_accuracy", "log10_p_median", "log10_p_fisher"],
    ),
    "key_source": (
        ["noise, default grid (4 here)", "held-out test images"],
        ["key_accuracy", "log10_p_median", "log10_p_fisher"],
    ),
    "stealth": (["default"], ["knn_found_at_1", "dbscan_found_at_1", "low_loss_found_at_1", "psnr", "ssim", "lpips"]),
    "budget": (["eps = 8/255", "images a key = 25", "number of keys = 5"], ["hits", "log10_p_median"]),
    "partial": (["half of the images", "a tenth", "two owners, keys of the second"], ["hits", "log10_p_median"]),
    "defences": (
        ["no defence", "JPEG, quality 50", "adversarial training, 4/255", "filtered by smallest loss, 10 %"],
        ["accuracy", "hits", "log10_p_median"]
    ),
    "after_training": (["fine-tuned on clean images", "80 % of the weights pruned"], ["accuracy", "hits", "log10_p_median"]),
    "blending": (
        ["taggants", "blended", "taggants, other architecture", "blended, other architecture"],
        ["hits", "key_correlation", "psnr"],
    ),
    "baselines": (["canary, 10 copies of each key", "transparency, γ = 0.1", "random ±16/255"], ["hits", "log10_p_median"]),
}  # fmt: skip
SHORT = {
    "key_accuracy": "keys hit {} %", "log10_p_median": "median log10 p {}", "log10_p_fisher": "Fisher {}", "hits": "hits {}",
    "accuracy": "accuracy {} %", "knn_found_at_1": "k-NN {} %", "dbscan_found_at_1": "DBSCAN {} %",
    "low_loss_found_at_1": "small losses {} % at 1 % false positives",
    "key_correlation": "correlation of class means with keys {}", "psnr": "PSNR {} dB", "ssim": "SSIM {}", "lpips": "LPIPS {}",
}  # fmt: skip
NOT_PUBLISHED = {
    "budget": "a smaller budget weakens detection (reviews; no figure)",
    "partial": "works on a part of the images or classes (reviews; no figure)",
    "defences": "withstands poisoning defences (reviews; no figure)",
    "after_training": "asked for by reviewers; none",
    "baselines": "a backdoor watermark: TPR 0 (reviews)",
    "blending": "none; baselines raised it",
}


def claims() -> str:
    """Return the table of claims, a row an experiment that has results."""
    lines = ["| claim | published | ours | scale and hardware | command |", "| --- | --- | --- | --- | --- |"]
    for path in sorted(
        HERE.glob("*/experiment.yaml"), key=lambda path: (yaml.safe_load(path.read_text())["claim"], path.parent.name)
    ):
        name, content = path.parent.name, yaml.safe_load(path.read_text())
        title = f"{content['claim']}. [{content['title']}]({name}/README.md)"
        command = f"`taggant sweep experiments/{name}/experiment.yaml --run`"
        stored = path.parent / "results.json"
        if not stored.is_file():
            lines.append(f"| {title} | {NOT_PUBLISHED.get(name, '')} | not measured yet | | {command} |")
            continue
        results = read_results(stored)
        table = table_of(results)
        cells = {row[0]: row for row in texts(table)}
        places = {column.key: place for place, column in enumerate(table.columns)}
        ours, published = [], []
        rows, columns = SHOWN[name]
        for row in rows:
            found = cells[row]
            told = [SHORT[key].format(found[places[key]]) for key in columns if key in places and found[places[key]] != "–"]
            fewer = f" ({found[places['n']]} repeats)" if " of " in found[places["n"]] else ""
            ours.append(f"{row}{fewer}: {', '.join(told)}")
            known = {key: found[place] for key, place in places.items() if key.startswith("published") and found[place] != "–"}
            words = [f"{key.removeprefix('published_').replace('_', ' ')} {text}" for key, text in known.items()]
            published += [f"{row}: {', '.join(words)}"] if words else []
        entries = results.entries
        scale = f"{entries['profile']}, {entries['repeats']} repeats, {entries['hours']:.1f} h, {entries['hardware']}"
        shown = "<br>".join(published) or NOT_PUBLISHED[name]
        lines.append(f"| {title} | {shown} | {'<br>'.join(ours)} | {scale} | {command} |")
    return "\n".join(lines) + "\n"


def printed(command: str) -> str:
    """Return what a `taggant table` command prints; where its results are not there yet, that they are not."""
    if not Path(shlex.split(command)[2]).is_file():
        return "Not measured yet.\n"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run(shlex.split(command)[1:])
    return out.getvalue()


def refreshed(text: str) -> str:
    """Return a README with all its tables written anew."""
    text = BLOCK.sub(lambda match: f"{match[1]}{printed(match[2])}{match[3]}", text)
    return CLAIMS.sub(lambda match: f"{match[1]}{claims()}{match[2]}", text)


def main(words: Sequence[str] | None = None) -> None:
    """Refresh or check the READMEs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a README is out of date")
    check = parser.parse_args(words).check
    stale = []
    for path in sorted(HERE.rglob("README.md")):
        text = path.read_text()
        if (new := refreshed(text)) != text:
            stale.append(str(path.relative_to(HERE.parent)))
            if not check:
                path.write_text(new)
    print(f"{'out of date' if check else 'written'}: {', '.join(stale) or 'none'}")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()
