"""What lies beside a release's images: manifest, list of hashes, dataset card, Croissant metadata. Pure functions.

All of it follows from public facts, so that whoever audits a release can make it again and compare it byte for byte.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import json_bytes
from taggant_lightning.outside import shown
from taggant_lightning.outside.fields import TEXT, anything, each, fields, matching, one_of, or_null, text, whole

FORMAT = "taggant-lightning/release/v2"
MANIFEST, HASHES, CARD, CROISSANT = "manifest.json", "SHA256SUMS", "README.md", "croissant.json"
DOCUMENTS = (MANIFEST, HASHES, CARD, CROISSANT)
_HEX = matching("[0-9a-f]{64}", "64 hexadecimal digits")
_NAMES = each(text(500), 1_000_000)
# A folder's name is one part of a path, and so never leads out of the release.
_FOLDER = matching(r"(?!\.{1,2}$)[^/\\\x00]{1,255}", "the name of a folder")
_MANIFEST = fields(
    {
        "layout": one_of("png", "webp", "npz", "zip", "parquet"),
        "codec": or_null(text(20)),
        "classes": _NAMES,
        "folders": each(_FOLDER, 1_000_000),
        "num_images": whole(0, 10**10),
        "source": fields({}, more=text(200)),
        "commitment": or_null(_HEX),
        "statement": text(10 * TEXT),
        "license": text(),
        "hashes": _HEX,
    },
    {"ledger_head": or_null(_HEX)},
    more=anything(),
)


@dataclass(frozen=True)
class Manifest:
    """What a release says of itself in the open.

    Attributes:
        layout: Name of the layout: `png`, `webp`, `npz`, `zip` or `parquet`.
        codec: How each image is encoded; None where pixels are stored as they are.
        classes: Class names in the order of their labels.
        folders: Folder of each class, in the order of the labels.
        num_images: Number of images.
        source: Fingerprint of the signed dataset's source and, where that is a release itself, the hash of its manifest.
        commitment: The one commitment of the keys, 64 hexadecimal digits, or None.
        statement: The dataset in words.
        license: Its licence, as the owner writes it.
        hashes: SHA-256 of the list of hashes.
        format: Version of this record.
        ledger_head: Head of the keys' ledger at the release, so that nobody writes what came before anew; or None.
    """

    layout: str
    codec: str | None
    classes: list[str]
    folders: list[str]
    num_images: int
    source: dict[str, str]
    commitment: str | None
    statement: str
    license: str
    hashes: str
    format: str = FORMAT
    ledger_head: str | None = None

    @classmethod
    def of(cls, stored: dict[str, Any], where: object) -> "Manifest":
        """Make one from JSON.

        Raises:
            TaggantError: If it is of another format, or fields are missing.
        """
        if stored.get("format") != FORMAT:
            raise TaggantError(
                f"release={where} has the format {shown(repr(stored.get('format')))}; this program reads {FORMAT}"
            )
        try:
            _MANIFEST(stored, "")
            return cls(**stored)
        except (TypeError, ValueError) as error:
            raise TaggantError(f"release={where}: {MANIFEST} is damaged ({error}); restore it from a copy") from None


def class_folders(classes: list[str]) -> list[str]:
    """Return a folder's name for each class, such that alphabetical order, by which others number classes, is label order.

    Names that are in order already and safe as file names stay; otherwise all get their number in front, and characters
    other than letters, digits, `.`, `_` and `-` become `_`.
    """
    plain = all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name) for name in classes)
    if plain and sorted(classes) == classes and len({name.lower() for name in classes}) == len(classes):
        return classes
    width = len(str(len(classes) - 1))
    return [f"{label:0{width}d}_{re.sub(r'[^A-Za-z0-9._-]', '_', name)}" for label, name in enumerate(classes)]


def hash_list(files: Sequence[tuple[str, str]]) -> bytes:
    """Return the list of hashes, as `sha256sum --check` reads it, of (name, SHA-256) pairs in order."""
    return "".join(f"{digest}  {name}\n" for name, digest in files).encode()


def read_hash_list(data: bytes) -> list[tuple[str, str]]:
    """Return the (name, SHA-256) pairs of a list of hashes.

    Raises:
        ValueError: If a line is not of that form.
    """
    pairs: list[tuple[str, str]] = []
    for line in data.decode().split("\n")[:-1]:
        digest, separator, name = line.partition("  ")
        if not separator or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"line {len(pairs) + 1} is no hash with a name")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"line {len(pairs) + 1} names a file outside the release")
        pairs.append((name, digest))
    return pairs


def manifest_json(manifest: Manifest) -> bytes:
    """Return the manifest's file."""
    said = asdict(manifest)
    if manifest.ledger_head is None:  # releases of earlier versions have no such entry, and are audited byte by byte
        del said["ledger_head"]
    return json_bytes(said)


def card(manifest: Manifest) -> bytes:
    """Return the dataset card: Markdown with the head that dataset hubs read."""
    import yaml

    head: dict[str, Any] = {"license": manifest.license or "unknown", "task_categories": ["image-classification"]}
    if manifest.layout == "parquet":
        head["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}]
        names = {str(label): name for label, name in enumerate(manifest.classes)}
        features = [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": {"class_label": {"names": names}}}]
        head["dataset_info"] = {"features": features, "splits": [{"name": "train", "num_examples": manifest.num_images}]}
    elif manifest.layout in ("png", "webp"):
        head["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": "train/**"}]}]
    how = f"{manifest.codec.upper()} images" if manifest.codec else "arrays of pixels"
    lines = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {manifest.statement or 'An image dataset'}",
        f"{manifest.num_images} images in {len(manifest.classes)} classes, as {how} (layout `{manifest.layout}`).",
        f"`sha256sum --check {HASHES}` checks every file.",
    ]
    if manifest.commitment:
        lines.append(
            "The owner has marked this dataset: some images are changed within a small bound, labels are true. Whether a model"
            f" was trained on it can be tested with keys that were committed to before publication: `{manifest.commitment}`."
        )
    return ("\n\n".join(lines) + "\n").encode()


_CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/", "dct": "http://purl.org/dc/terms/", "citeAs": "cr:citeAs",
    "column": "cr:column", "conformsTo": "dct:conformsTo", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5",
    "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet", "references": "cr:references",
    "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "samplingRate": "cr:samplingRate",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip


# Of each layout: the sets of files, each within the one before it: name, pattern, media type.
_FILE_SETS: dict[str, list[tuple[str, str, str]]] = {
    "png": [("files", "train/**/*.png", "image/png")],
    "webp": [("files", "train/**/*.webp", "image/webp")],
    "npz": [("arrays", "data.npz", "application/x-npz")],
    "zip": [("archives", "train-*.zip", "application/zip"), ("files", "**/*.png", "image/png")],
    "parquet": [("shards", "data/train-*.parquet", "application/x-parquet")],
}


def croissant(manifest: Manifest) -> bytes:
    """Return Croissant 1.0 metadata (JSON-LD): which files there are, and how to read records from them."""
    listed = {"sha256": manifest.hashes, "encodingFormat": "text/plain"}
    hashes = {"@type": "cr:FileObject", "@id": HASHES, "name": HASHES, "contentUrl": HASHES, **listed}
    folder = {"@type": "cr:FileObject", "@id": "folder", "name": "folder", "contentUrl": "./", **listed}
    folder["description"] = f"This folder; {HASHES}, whose hash stands here, names every file of it."
    distribution: list[dict[str, Any]] = [hashes, folder]
    within = "folder"
    for name, pattern, media in _FILE_SETS[manifest.layout]:
        one = {"@type": "cr:FileSet", "@id": name, "name": name, "containedIn": {"@id": within}}
        distribution.append({**one, "encodingFormat": media, "includes": pattern})
        within = name
    metadata: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": manifest.statement or "images",
        "description": f"{manifest.num_images} images in {len(manifest.classes)} classes.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": manifest.license or "unknown",
        "distribution": distribution,
    }
    if manifest.layout == "parquet":
        image = {"extract": {"column": "image"}, "transform": {"jsonPath": "bytes"}}
        metadata["recordSet"] = [_records("shards", image, "sc:Integer", {"extract": {"column": "label"}})]
    elif manifest.layout != "npz":  # Croissant has no words for arrays in an archive
        folder_of = "train/([^/]+)/" if manifest.layout != "zip" else "([^/]+)/[^/]+$"
        label = {"extract": {"fileProperty": "fullpath"}, "transform": {"regex": folder_of}}
        metadata["recordSet"] = [_records("files", {"extract": {"fileProperty": "content"}}, "sc:Text", label)]
    return (json.dumps(metadata, indent=2, ensure_ascii=False) + "\n").encode()


def _records(files: str, image: dict[str, Any], label_type: str, label: dict[str, Any]) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"images/{name}",
            "name": name,
            "dataType": kind,
            "source": {"fileSet": {"@id": files}, **how},
        }
        for name, kind, how in (("image", "sc:ImageObject", image), ("label", label_type, label))
    ]
    return {"@type": "cr:RecordSet", "@id": "images", "name": "images", "field": fields}


def documents(manifest: Manifest, files: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """Return every document of a release by its file name."""
    return {
        MANIFEST: manifest_json(manifest),
        HASHES: hash_list(files),
        CARD: card(manifest),
        CROISSANT: croissant(manifest),
    }
