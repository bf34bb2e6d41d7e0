"""A look at every header of a data set before anything is read: channels of the whole, what reading changes and cannot read."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from taggant_lightning import outside
from taggant_lightning.data.pictures import CHANGES, Header, PictureError, header_of, one_line
from taggant_lightning.data.sources.encoded import Mode
from taggant_lightning.data.sources.listing import Found, Listing, plain, shown
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, sha256_hex
from taggant_lightning.parallel import cores

SURVEYED = "TAGGANT_SURVEYED"  # what processes that a training starts need not look at again
CHUNK = 256  # headers at a time
MANY = 20_000  # from so many files on, several processes look
_known: dict[str, Mode] = {}

Opener = Callable[[Found], BinaryIO]


def surveyed() -> str:
    """Return what this process has found so far, for the environment of those that it starts."""
    return json.dumps(_known)


def survey(listings: Sequence[Listing], openers: Sequence[Opener], where: Path) -> Mode:
    """Look at the headers of all splits, say in a few lines what is left out and what reading will change, and tell the mode.

    Each data set is looked at once a process, and once for all processes that a training starts.

    Args:
        listings: The splits' files.
        openers: For each split, what opens one of them.
        where: The data set, for messages.

    Returns:
        `L` if every picture is grey, else `RGB`.

    Raises:
        TaggantError: If a file cannot be read as a picture, or a picture lies outside the class folders.
    """
    refused = [_within(listing, where) + name for listing in listings for name in listing.refused]
    if refused:
        raise _refusal(where, refused)
    for listing in listings:
        within = sorted({f.parts[1] for f in listing.found if len(f.parts) > 2})
        if len(listing.classes) == 1 and len(within) > 1 and all(len(f.parts) > 2 for f in listing.found):
            raise TaggantError(
                f"{listing.where} holds one folder, {plain(listing.classes[0])}, with all pictures in folders below it "
                f"({shown(within)}), which may be the classes; move these up, or put the pictures into the one folder itself"
            )
    facts = [[["/".join(f.parts), f.check, f.stamp] for f in [*one.found, *one.outside]] for one in listings]
    digest = sha256_hex(canonical_json([str(where), facts]))
    if digest not in _known:
        _known.update(json.loads(os.environ.get(SURVEYED, "{}")))
    if digest not in _known:
        _known[digest] = _look(listings, openers, where)
    return _known[digest]


def _look(listings: Sequence[Listing], openers: Sequence[Opener], where: Path) -> Mode:
    counts: Counter[str] = Counter()
    refused: list[str] = []
    grey: list[str] = []
    total = 0
    left = [_within(listing, where) + name for listing in listings for name in listing.left]
    for listing, opener in zip(listings, openers, strict=True):
        for found, header in zip(listing.found, _headers(listing.found, opener, where), strict=True):
            total += 1
            name = _within(listing, where) + "/".join(found.parts)
            if isinstance(header, str):
                refused.append(f"{name} ({header})")
                continue
            counts.update(header.changes)
            if header.grey:
                grey.append(name)
        for found, header in zip(listing.outside, _headers(listing.outside, opener, where), strict=True):
            name = _within(listing, where) + "/".join(found.parts)
            if isinstance(header, str):
                left.append(name)
            else:
                refused.append(f"{name} (a picture outside the class folders)")
    if refused:
        raise _refusal(where, refused)
    lines = [f"pictures {text}: {counts[word]} of {total}" for word, text in CHANGES.items() if counts[word]]
    if 0 < len(grey) < total:
        lines.append(
            f"pictures that are grey and get three channels, as others are in colour: {len(grey)} of {total} ({shown(grey)})"
        )
    if left:
        lines.append(f"left out, as no pictures by their names or place: {len(left)} ({shown(left)})")
    for listing in listings:
        empty = sorted(set(listing.classes) - {f.parts[0] for f in listing.found})
        if empty:
            lines.append(f"class folders of {listing.where.name} without a picture: {len(empty)} ({shown(empty)})")
    say([f"{where}: {line}" for line in lines])
    return "L" if len(grey) == total else "RGB"


def _within(listing: Listing, where: Path) -> str:
    """Return what stands before a split's names, where the data set is known by the folder above it."""
    return "" if listing.where == where else f"{listing.where.name}/"


def _refusal(where: Path, refused: list[str]) -> TaggantError:
    many = len(refused) > 1
    what = f"{len(refused)} files that cannot be read as pictures" if many else "a file that cannot be read as a picture"
    return TaggantError(f"{where} holds {what}: {shown(refused)}; convert, replace or remove what is named")


def _headers(found: Sequence[Found], opener: Opener, where: Path) -> Iterator[Header | str]:
    """Yield each file's header, or why it has none."""
    chunks = [found[start : start + CHUNK] for start in range(0, len(found), CHUNK)]
    results: Iterable[list[Header | str]]
    if len(found) < MANY:
        results = (_chunk(opener, chunk) for chunk in chunks)
        yield from (header for chunk in results for header in chunk)
        return
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    # The processes that decode images in training look at their headers too: they need no guard in a user's script.
    results = DataLoader(cast(Any, _Chunks(chunks, opener)), batch_size=None, num_workers=cores() if cores() > 1 else 0)
    with tqdm(total=len(found), desc=f"looking at {where.name}", unit="file", mininterval=1, delay=1, leave=False) as bar:
        for headers in results:
            bar.update(len(headers))
            yield from headers


@dataclass
class _Chunks:
    """The headers of many files, a chunk an item; read by loader processes."""

    chunks: list[Sequence[Found]]
    opener: Opener

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> list[Header | str]:
        return _chunk(self.opener, self.chunks[index])


def _chunk(opener: Opener, found: Iterable[Found]) -> list[Header | str]:
    return [_header(opener, one) for one in found]


def _header(opener: Opener, found: Found) -> Header | str:
    try:
        with opener(found) as file:
            return header_of(file)
    except PictureError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    except Exception as error:  # of a damaged archive
        return one_line(error)


def say(lines: Iterable[str]) -> None:
    """Print lines about the data, in the first process of several."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))  # as Lightning finds out
    if next((rank for rank in ranks if rank), "0") == "0":
        for line in lines:
            outside.say(f"taggant: {line}", file=sys.stderr, flush=True)
