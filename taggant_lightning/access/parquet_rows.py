"""Prints a parquet file as JSON, its columns and then a row a line: run as a process of its own, with limits.

A damaged file can abort pyarrow, and a small one can unpack to gigabytes; neither may end the program that asks. It imports
nothing of the package, so that it starts at once.
"""

import json
import resource
import sys
from contextlib import suppress
from decimal import Decimal

UNREADABLE = 3  # exit code; the reason is on stderr
MEMORY, SECONDS = 8 * 2**30, 120  # of address space, in which pyarrow only reserves most; of the processor
PIECE = 64  # rows unpacked at a time


def main(path: str, most_values: int, most_bytes: int) -> None:
    """Print the columns and the rows.

    Args:
        path: The file.
        most_values: Most values that its metadata may name.
        most_bytes: Most bytes that its metadata may name, uncompressed.
    """
    for kind, limit in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # a lower limit of the system's own stays
            resource.setrlimit(kind, (limit, limit))
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        print(json.dumps(file.schema_arrow.names))
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        values = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
        if values > most_values or sum(group.total_byte_size for group in groups) > most_bytes:
            raise ValueError("it unpacks to more than is read; write the first places of each answer only")
        for batch in file.iter_batches(batch_size=PIECE, use_threads=False):
            for row in batch.to_pylist():
                print(json.dumps(row, default=_other))


def _other(value: object) -> float | None:
    """Return a decimal as a number, and None for what JSON does not know: no label and no score."""
    return float(value) if isinstance(value, Decimal) else None


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    except Exception as error:  # pyarrow raises its own, and others on damage; all mean that it cannot be read
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print(lines[0][:400], file=sys.stderr)
        sys.exit(UNREADABLE)
