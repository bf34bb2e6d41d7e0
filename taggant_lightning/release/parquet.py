"""Parquet shards with image bytes and labels. pyarrow is optional."""

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.release.layout import Item, Shards, decoded

ROW_GROUP = 64


class Parquet(Shards):
    """`data/train-*.parquet` with image bytes and labels, as dataset hubs read them."""

    name = "parquet"
    folder = "data/"

    def prepare(self, part: Path) -> None:
        """Make the folder of the shards, if pyarrow is there."""
        pyarrow()
        super().prepare(part)

    def pack(self, to: Path | io.BytesIO, unit: int, encoded: Iterable[bytes]) -> None:
        """Write one shard."""
        pa, pq = pyarrow()
        places = self.units[unit]
        images = [{"bytes": data, "path": self.member(place)} for place, data in zip(places, encoded, strict=True)]
        table = pa.table({"image": images, "label": [self._label(place) for place in places]}, schema=self._schema)
        # Images are compressed already. Small row groups let a reader fetch few images.
        pq.write_table(table, to, compression="none", row_group_size=ROW_GROUP, use_dictionary=False)

    @property
    def _schema(self) -> Any:
        pa, _ = pyarrow()
        features = {"image": {"_type": "Image"}, "label": {"names": self.source.classes, "_type": "ClassLabel"}}
        stated = {"huggingface": json.dumps({"info": {"features": features}})}
        image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        return pa.schema({"image": image, "label": pa.int64()}, metadata=stated)

    def items(self, folder: Path, unit: int) -> Iterator[Item]:
        """Read the images of one shard."""
        name = self.shard(unit)
        rows = parquet_rows(folder / name)
        if len(rows) != len(self.units[unit]):
            raise TaggantError(f"release={folder}: {name} holds {len(rows)} images; write the release again")
        for row in rows:
            yield Item(int(row["label"]), row["image"]["bytes"], decoded(row["image"]["bytes"], folder))


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Read all rows of a shard.

    Raises:
        TaggantError: If it is missing or damaged.
    """
    pa, pq = pyarrow()
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, memory_map=True).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise TaggantError(f"{path} is missing or damaged ({error}); write the release again") from None
    return rows


def pyarrow() -> tuple[Any, Any]:
    """Import pyarrow.

    Raises:
        TaggantError: If it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise TaggantError(
            "format=parquet needs pyarrow, which is not installed; run `pip install 'taggant-lightning[parquet]'`"
        ) from None
    return pa, pq


class RowGroups:
    """Image bytes of parquet shards; the last row group read stays in memory, for readers that go in order."""

    def __init__(self, paths: list[Path]) -> None:
        _, pq = pyarrow()
        self._paths = paths
        self._where: list[tuple[int, int, int]] = []  # shard, row group, row in it
        for shard, path in enumerate(paths):
            metadata = pq.ParquetFile(path).metadata
            for group in range(metadata.num_row_groups):
                self._where += [(shard, group, row) for row in range(metadata.row_group(group).num_rows)]
        self._held: tuple[tuple[int, int], list[Any]] | None = None

    def column(self, name: str) -> list[Any]:
        """Return a whole column, `label`, or of a structure one field, `image.path`."""
        _, pq = pyarrow()
        tables = (pq.ParquetFile(path).read(columns=[name]) for path in self._paths)
        return [value for table in tables for value in table[name.split(".")[0]].to_pylist()]

    def __call__(self, index: int) -> bytes:
        """Return one image's encoded bytes."""
        shard, group, row = self._where[index]
        if self._held is None or self._held[0] != (shard, group):
            _, pq = pyarrow()
            images = pq.ParquetFile(self._paths[shard]).read_row_group(group, columns=["image"])["image"].to_pylist()
            self._held = ((shard, group), images)
        data: bytes = self._held[1][row]["bytes"]
        return data
