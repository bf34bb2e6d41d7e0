"""`taggant inspect`: look for images that do not belong, as a suspicious user of a dataset would."""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.adversary.detectors import DETECTORS, NOISE, Evidence, check_detectors
from taggant_lightning.adversary.inspection import energies, measure, truth
from taggant_lightning.adversary.roc import Roc, most_suspicious
from taggant_lightning.commands.read_data import read_data
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.data.npz import stacked, write_npz
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_paths, write_atomic, write_json
from taggant_lightning.outside import say
from taggant_lightning.release.signature import Signature
from taggant_lightning.reporting.bar import Bar

Scores = dict[str, NDArray[np.float64]]

_EPILOG = """detectors, each with its source in taggant_lightning/adversary/detectors.py:
  knn                    mean distance to the nearest neighbours of any class, on the model's features
  dbscan                 radius at which an image stops being noise, per class; above 1 the class's own radius
  spectral_signatures    how far out in the direction in which the class spreads most
  activation_clustering  membership of the smaller of two clusters of the class
  loss_quantile          share of images that the model fits better
  low_loss               share of images that the model fits worse; an early checkpoint shows what is learned first
  high_frequency         energy of the stored pixels' high frequencies; looks at no model

examples:
  taggant inspect --config data/npz --data.root bought.npz --checkpoint run/checkpoints/last.ckpt --out looked
  taggant inspect --config data/cifar100_cpu --data SignedDataModule --data.release release \\
      --checkpoint run/checkpoints/last.ckpt --out looked --remove 0.05 --by knn
  taggant inspect … --data SignedDataModule --data.signature signature --truth signature --out looked

A model that was trained on the data looks at its own training images. scores.csv has a line an image; the highest scores are
the most suspicious. The owner, who knows which images are signed, measures with --truth how well they hide: metrics.json,
roc.json and roc.png hold aggregates only and name no image. With the originals as data and --truth, the same figures are the
control: what sets those images apart before they are signed. --remove writes kept.npz, to train on again with
--data.source npz --data.root kept.npz --data.train_subset null. Further options --data.NAME VALUE override the configuration.
knn compares all pairs of images: 50,000 take minutes on a CPU, a million too long; name the other detectors then.
"""


def run(words: list[str]) -> None:
    """Run `taggant inspect`."""
    arguments, overrides = parser_of_inspect().parse_known_args(words[1:])
    given_paths(arguments, "config", "checkpoint", "out", "truth")
    names, out = check_detectors(arguments.detectors.split(",")), Path(arguments.out)
    remove, by = arguments.remove, arguments.by
    if (remove is None) != (by is None):
        raise TaggantError(f"remove={remove} and by={by}: write both or none, for instance --remove 0.05 --by {names[0]}")
    if by is not None and by not in names:
        raise TaggantError(f"by={by} is not among detectors={','.join(names)}; write one of these")
    if out.exists() and not out.is_dir():
        raise TaggantError(f"out={out} is a file; name a folder")
    data = read_data(arguments.config, overrides)
    known = None if arguments.truth is None else truth(data, Signature.load(arguments.truth))
    if remove is not None:
        most_suspicious(np.zeros(len(data.train_indices)), remove)  # a wrong share is told before the long work
    scores = _scores(data, arguments.checkpoint, names, arguments.device)
    removed = None if remove is None else most_suspicious(scores[by], remove)
    # All that can fail comes before the first file.
    kept = None if removed is None else _kept(data, ~removed)
    figures: dict[str, float] = {}
    curves: dict[str, Roc] = {}
    if known is not None:
        figures, curves = measure(scores, known.signed)
        if removed is not None:
            figures["removed_signed"] = float(removed[known.signed].mean())
            figures["removed_precision"] = float(known.signed[removed].mean())
    out.mkdir(parents=True, exist_ok=True)
    for name in ("scores.csv", "metrics.json", "roc.json", "roc.png", "kept.npz"):  # of an earlier look, with other words
        (out / name).unlink(missing_ok=True)
    write_atomic(out / "scores.csv", _table(data, scores).encode())
    if kept is not None:
        write_npz(out / "kept.npz", *kept, classes=data.train_source.classes)
    if known is not None:
        from taggant_lightning.reporting.stealth_figures import roc_figure

        write_json(out / "roc.json", {name: curve._asdict() for name, curve in curves.items()})
        roc_figure(curves, out / "roc.png")
        write_json(out / "metrics.json", figures)
        if not known.applied:
            say("The data holds the originals: these figures are the control.")
    for line in _shown(data, scores, figures):
        say(line)
    if removed is not None:
        of_signed = f", {figures['removed_signed']:.1%} of the signed ones" if known is not None else ""
        say(f"removed by {by}: {int(removed.sum())} of {len(removed)} images{of_signed}; the others are in {out / 'kept.npz'}")
    say(f"taggant: out={out}")


def parser_of_inspect() -> argparse.ArgumentParser:
    """Return the parser; what it does not know belongs to the data."""
    parser = argparse.ArgumentParser(
        prog="taggant inspect",
        description="Look for images that do not belong, as a suspicious user of a dataset would.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --data and --data.NAME belong to the configuration
    )
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="a configuration; only `data` is read")
    parser.add_argument("--checkpoint", required=True, metavar="CKPT", help="a model that `taggant fit` trained on the data")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for what is found")
    parser.add_argument("--detectors", default=",".join(DETECTORS), metavar="NAMES", help="with commas (default: %(default)s)")
    parser.add_argument("--truth", metavar="DIR", help="the owner's Signature: measure how many signed images are found")
    parser.add_argument("--remove", type=float, metavar="SHARE", help="write the data without the most suspicious share")
    parser.add_argument("--by", metavar="DETECTOR", help="the detector that --remove goes by")
    parser.add_argument("--device", metavar="NAME", help="where the model runs (default: a GPU if there is one)")
    return parser


def _scores(data: ImageDataModule, checkpoint: str, names: list[str], device: str | None) -> Scores:
    """Show the model its training images, and let each detector judge."""
    import torch

    from taggant_lightning.adversary.features import activations
    from taggant_lightning.models.classifier import load_classifier

    model = load_classifier(checkpoint)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # torch says both of a device that is not there
        raise TaggantError(f"device={place} cannot be used ({str(error).splitlines()[0]}); write cpu or cuda") from None
    bar = Bar()
    shown = activations(model, data, device=place, progress=bar)
    pixels = energies(data, bar) if "high_frequency" in names else None
    evidence = Evidence(shown.features, shown.losses, data.train_source.labels[data.train_indices], pixels)
    say(f"taggant: images={len(shown.features)} features={shown.features.shape[1]}", flush=True)
    found = {}
    for number, name in enumerate(names, start=1):
        began = time.monotonic()
        found[name] = DETECTORS[name](evidence)
        say(f"taggant: detector={name} ({number}/{len(names)}) seconds={time.monotonic() - began:.1f}", flush=True)
    return found


def _kept(
    data: ImageDataModule, keep: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Return the training images that stay, and the whole test split."""
    train, test, indices = data.train_source, data.test_source, data.train_indices[keep]
    return stacked(train, indices), train.labels[indices], stacked(test, np.arange(len(test))), test.labels


def _table(data: ImageDataModule, scores: Scores) -> str:
    """Return scores.csv: indices into the whole source, labels, one column a detector."""
    labels = data.train_source.labels[data.train_indices]
    rows = zip(data.train_indices.tolist(), labels.tolist(), *(s.tolist() for s in scores.values()), strict=True)
    return "\n".join([",".join(("index", "label", *scores)), *(",".join(map(str, row)) for row in rows), ""])


def _shown(data: ImageDataModule, scores: Scores, figures: dict[str, float]) -> list[str]:
    """Return a small table: what is found of the signed images, or where to look first."""
    if not figures:
        lines = [f"{'detector':<22}  most suspicious images (indices of the source)"]
        for name, values in scores.items():
            first = data.train_indices[np.argsort(-values, kind="stable")[:6]]
            lines.append(f"{name:<22}  {' '.join(map(str, first.tolist()))}")
        if "dbscan" in scores:
            lines.append(f"dbscan calls {int((scores['dbscan'] > NOISE).sum())} of {len(data.train_indices)} images noise.")
        return lines
    lines = [f"{'detector':<22}  {'AUC':>5}  found at 1 %  found at 5 % of false alarms"]
    for name in scores:
        at_1, at_5 = figures[f"{name}_found_at_1"], figures[f"{name}_found_at_5"]
        lines.append(f"{name:<22}  {figures[f'{name}_auc']:5.3f}  {at_1:12.1%}  {at_5:12.1%}")
    if "dbscan" in scores:
        found, alarms = figures["dbscan_noise_found"], figures["dbscan_noise_false_positives"]
        lines.append(f"dbscan's own verdict calls {found:.1%} of signed and {alarms:.1%} of unsigned images noise.")
    return lines
