"""`taggant release`: write the signed dataset as files, read every file back from disk and audit it."""

import argparse
from pathlib import Path
from typing import Any

from taggant_lightning.commands.read_data import read_data
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger
from taggant_lightning.files import given_path, given_paths, read_json, sha256_file, write_secret_json
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.models.perceptual import Perceptual
from taggant_lightning.outside import say
from taggant_lightning.parallel import cores
from taggant_lightning.release.audit import audit_release
from taggant_lightning.release.documents import MANIFEST, Manifest
from taggant_lightning.release.layouts import make_layout
from taggant_lightning.release.places import refuse_within_data
from taggant_lightning.release.signature import OverlaySource, Signature
from taggant_lightning.release.signed import SignedDataModule
from taggant_lightning.release.writing import write_release
from taggant_lightning.reporting.bar import Bar


def run(words: list[str]) -> None:
    """Run `taggant release`."""
    parser = argparse.ArgumentParser(
        prog="taggant release",
        description=__doc__,
        epilog="A killed release goes on when the same command runs again. The audit's report lies in the Signature's folder, "
        "audit.json; it counts signed images, so do not publish it. "
        "Further options --data.NAME VALUE override the configuration, for instance --data.root FOLDER.",
    )
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="a configuration; only `data` is read")
    parser.add_argument("--signature", required=True, metavar="DIR", help="folder that TaggantSigning made")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder for the files to publish")
    parser.add_argument(
        "--format",
        default="png",
        metavar="F",
        help="png or webp: one file an image, in class folders; zip: the same in archives; parquet: shards as dataset hubs "
        "read them; npz: one file of arrays; source: the layout and the names that the source has (default: %(default)s)",
    )
    parser.add_argument("--statement", default="", metavar="TEXT", help="the dataset in words, for manifest and card")
    parser.add_argument("--license", default="", metavar="NAME", help="the dataset's licence, for manifest and card")
    parser.add_argument(
        "--keys", metavar="DIR", help="folder of the KeySet: the head of its ledger goes into the manifest (docs/evidence.md)"
    )
    parser.add_argument("--workers", type=int, default=cores(), metavar="N", help="processes (default: all cores, %(default)s)")
    parser.add_argument("--lpips-weights", metavar="FILE", help="AlexNet's weights; with them the audit measures LPIPS")
    parser.add_argument("--audit-only", action="store_true", help="write nothing; audit the release in --out")
    arguments, overrides = parser.parse_known_args(words[1:])
    given_paths(arguments, "config", "signature", "out", "lpips_weights")
    if arguments.workers < 1:
        raise TaggantError(f"workers={arguments.workers} must be at least 1")
    data = read_data(arguments.config, overrides)
    report = publish(
        data,
        Signature.load(arguments.signature),
        Path(arguments.out),
        format=arguments.format,
        statement=arguments.statement,
        license=arguments.license,
        workers=arguments.workers,
        perceptual_weights=arguments.lpips_weights,
        audit_only=arguments.audit_only,
        ledger_head=None if arguments.keys is None else _head(arguments.keys),
    )
    write_secret_json(Path(arguments.signature) / "audit.json", report)
    first, *others = summary(report, arguments.out)
    for line in (first, complete(data, report), *others):
        say(line)


def _head(folder: str) -> str:
    """Return the head of a KeySet's ledger; that of an empty one is the commitment."""
    keys = KeySet.load(folder)
    entries = Ledger(folder, keys.commitment).entries()
    return str(entries[-1]["hash"]) if entries else keys.commitment


def _published_head(release: Path) -> str | None:
    """Return the head that a release has published already: the ledger may have grown since."""
    path = release / MANIFEST
    return read_json(path, what="release").get("ledger_head") if path.is_file() else None


def publish(
    data: ImageDataModule,
    signature: Signature,
    out: Path,
    *,
    format: str = "png",
    statement: str = "",
    license: str = "",
    workers: int = 1,
    perceptual_weights: str | None = None,
    audit_only: bool = False,
    ledger_head: str | None = None,
) -> dict[str, Any]:
    """Write the training images in use with the Signature applied, and audit what was written.

    Args:
        data: The original data.
        signature: Made for it.
        out: New folder; with `audit_only` the release in question.
        format: `png`, `webp`, `npz`, `zip`, `parquet` or `source`.
        statement: The dataset in words.
        license: Its licence.
        workers: Processes; a script that asks for more than one needs its `if __name__ == "__main__":`.
        perceptual_weights: File with AlexNet's weights, for LPIPS.
        audit_only: Whether to write nothing.
        ledger_head: Head of the keys' ledger for the manifest, so that nobody writes what came before anew; None for none.

    Returns:
        What `audit_release` returns.

    Raises:
        TaggantError: If the Signature belongs to other data, or the files are not as they should be.
        OSError: If the disk is full; the same call goes on.
    """
    out = given_path(out, "out")
    refuse_within_data(out, data)
    if isinstance(data.train_source, OverlaySource):
        raise TaggantError(
            "the data carry a Signature already, and a release names one commitment; release that one first, and sign its"
            " release (--data SignedDataModule --data.release DIR)"
        )
    earlier = data.release if isinstance(data, SignedDataModule) else None
    if earlier is not None and format == "source":
        raise TaggantError("format=source is the layout of original data, and these are a release; write --format png")
    if perceptual_weights is not None:
        Perceptual("alex", perceptual_weights)  # a wrong file is told before anything is written
    source = signature.apply(data.train_source)
    outside = set(signature.indices.tolist()) - set(data.train_indices.tolist())
    if outside:
        raise TaggantError(
            f"{len(outside)} signed images are outside train_subset={data.train_subset}; release the subset that was signed"
        )
    indices = signature.among(data.train_indices, len(data.train_source))
    layout = make_layout(format, source, indices, came_from=data.source)
    origin = {"fingerprint": data.train_source.fingerprint}
    if earlier is not None:  # a release of another owner: name it, and with it her commitment
        origin["release"] = sha256_file(Path(earlier) / MANIFEST)
    manifest = Manifest(
        layout=layout.name,
        codec=layout.codec,
        classes=source.classes,
        folders=layout.folders,
        num_images=len(indices),
        source=origin,
        commitment=signature.commitment,
        statement=statement,
        license=license,
        hashes="",
        ledger_head=_published_head(out) if audit_only else ledger_head,
    )

    bar = Bar()
    try:
        beside = data.test_source
    except TaggantError:  # a release needs no test split
        beside = None

    def check(folder: Path) -> dict[str, Any]:
        return audit_release(
            folder, layout, manifest, beside=beside, perceptual_weights=perceptual_weights, workers=workers, progress=bar
        )

    if audit_only:
        return check(out)
    return write_release(layout, manifest, out, check=check, workers=workers, progress=bar)


def complete(data: ImageDataModule, report: dict[str, Any]) -> str:
    """Say how many items of the source a release holds."""
    total, left = len(data.train_source), data.train_source.left_out
    added = report["num_added"]
    said = f"{report['num_images'] - added} of the source's {total} training images are released"
    said += f", and {added} that were added" if added else ""
    return said if not left else f"{said}; {left} other files of it were left out"


def summary(report: dict[str, Any], out: str) -> list[str]:
    """Say in a few lines what an audit found."""
    seen = report["visibility"]
    likeness = [
        f"{name} {seen[key]:.{digits}f}{unit}"
        for name, key, digits, unit in (
            ("PSNR", "psnr_mean", 1, " dB"),
            ("SSIM", "ssim_mean", 3, ""),
            ("LPIPS", "lpips_mean", 4, ""),
        )
        if seen[key] is not None
    ]
    return [
        f"{report['num_images']} images in {out}, {report['num_changed']} changed by at most {report['max_step']}/255"
        f" (bound {report['bound']}/255); read back from disk, labels and classes as in the source",
        *([f"signed images against their originals: {', '.join(likeness)}"] if likeness else []),
        report["verdict"],
        report["warning"],
    ]
