"""What becomes of a shard: a Parquet file of features, and the small JSON file that finishes it.

The Parquet file has a name of its contents, so a worker that is killed before the JSON file exists
leaves nothing that another one could mistake for a result, and two workers of one shard do not
disturb one another.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import DataError, shortened
from fishfeat.images.decode import UnavailableFile
from fishfeat.records.provenance import RuntimeConfig
from fishfeat.shards.manifest import PROTOCOL, format_record, parse_parquet, read_record, to_parquet
from fishfeat.shards.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_DONE = re.compile(r"features-(\d{6,})\.json")
FEATURES = "features"


class RejectedRow(msgspec.Struct, frozen=True):
    """An image of a shard that cannot be used.

    Attributes
    ----------
    key, reason, label, digest, reader
        As in `Rejected`.
    n_bytes, version
        Of its file, as in `ImageRow`.
    """

    key: str
    reason: str
    label: str = ""
    n_bytes: int = -1
    version: str = ""
    digest: str = ""
    reader: str = ""


class ShardResult(msgspec.Struct, frozen=True, kw_only=True):
    """`features-000000.json`: a shard that is done.

    Attributes
    ----------
    number
        Number of the shard.
    file
        Name of the Parquet file.
    digest
        SHA-256 of that file.
    n_rows, n_bytes
        Images embedded, and bytes read.
    labels
        Class name -> images embedded; '' for those without a label.
    fingerprint
        Of the backbone.
    runtime, device
        What ran the network.
    rejected
        The images that cannot be used.
    seconds
        How long it took.
    """

    number: int
    file: str
    digest: str
    n_rows: int
    n_bytes: int
    labels: dict[str, int]
    fingerprint: str
    runtime: str
    device: str
    rejected: tuple[RejectedRow, ...] = ()
    seconds: float = 0.0
    protocol: int = PROTOCOL


class EmbeddedRow(NamedTuple):
    """An image that is embedded; the fields are the columns of the Parquet file.

    Attributes
    ----------
    key, label, group, part
        As in `Entry`.
    n_bytes, version
        As in `StoredFile`.
    digest, file_digest
        As in `ImageSet`.
    width, height, values
        As in `ImageSet`.
    crop, box
        As in `ImageSet`; None for a whole image.
    truncated
        The problem of a file that ends too early; '' for a whole one.
    """

    key: str
    label: str
    group: str
    part: str
    n_bytes: int
    version: str
    digest: str
    file_digest: str
    width: int
    height: int
    values: str
    crop: tuple[int, ...] | None
    box: tuple[int, ...] | None
    truncated: str


@dataclass
class ShardContents:
    """What a worker collects of a shard.

    Attributes
    ----------
    rows
        The images that are embedded.
    vectors
        float32 (n, dim) of each batch.
    rejected
        The others.
    """

    rows: list[EmbeddedRow] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)

    def to_table(self, dim: int) -> pa.Table:
        """The table of the Parquet file."""
        import pyarrow as pa

        X = np.concatenate([np.empty((0, dim), np.float32), *self.vectors])
        schema = make_schema(dim)
        columns = list(zip(*self.rows, strict=True)) or [()] * len(EmbeddedRow._fields)
        arrays: list[pa.Array] = []
        for values, kind in zip(columns, schema.types[:-1], strict=True):
            arrays.append(pa.array(list(values), kind))
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), dim))
        return pa.Table.from_arrays(arrays, schema=schema)


def make_schema(dim: int) -> pa.Schema:
    """Columns of the Parquet file of a shard."""
    import pyarrow as pa

    kinds = dict.fromkeys(EmbeddedRow._fields, pa.string())
    kinds |= dict.fromkeys(("n_bytes", "width", "height"), pa.int64())
    kinds |= {"crop": pa.list_(pa.int64(), 6), "box": pa.list_(pa.int64(), 4)}
    return pa.schema([*kinds.items(), (FEATURES, pa.list_(pa.float32(), dim))])


class Maker(NamedTuple):
    """What made the features of a shard.

    Attributes
    ----------
    dim, fingerprint
        Of the backbone.
    config
        How the network ran.
    device
        The device that ran it.
    """

    dim: int
    fingerprint: str
    config: RuntimeConfig
    device: str


def write_result(
    store: Store, number: int, contents: ShardContents, maker: Maker, seconds: float
) -> ShardResult:
    """Write the features of a shard, and then the file that finishes it.

    Gives the result that counts, which is another worker's where that was sooner.
    """
    data = to_parquet(contents.to_table(maker.dim), vectors=FEATURES)
    digest = hashlib.sha256(data).hexdigest()
    result = ShardResult(
        number=number,
        file=f"features-{number:06d}-{digest[:16]}.parquet",
        digest=digest,
        n_rows=len(contents.rows),
        n_bytes=sum(row.n_bytes for row in contents.rows if row.n_bytes > 0),
        labels=dict(sorted(Counter(row.label for row in contents.rows).items())),
        fingerprint=maker.fingerprint,
        runtime=str(maker.config),
        device=maker.device,
        rejected=tuple(sorted(contents.rejected, key=lambda row: row.key)),
        seconds=round(seconds, 3),
    )
    store.write(result.file, data)
    if store.create(_name_done(number), format_record(result)):
        return result
    written = read_result(store, number)
    if written.file != result.file:
        store.remove(result.file)
    return written


def _name_done(number: int) -> str:
    return f"features-{number:06d}.json"


def list_done(store: Store) -> list[int]:
    """Numbers of the shards that are done, sorted."""
    matches = map(_DONE.fullmatch, store.list_top()[1])
    return sorted(int(match[1]) for match in matches if match)


def read_result(store: Store, number: int) -> ShardResult:
    """Read the file that finishes a shard.

    Raises
    ------
    DataError
        It is damaged.
    """
    return read_record(store, _name_done(number), ShardResult)


def find_result(store: Store, number: int) -> ShardResult | None:
    """Read the file that finishes a shard; None where it is not done."""
    return read_result(store, number) if store.exists(_name_done(number)) else None


def read_results(store: Store, n_shards: int) -> list[ShardResult]:
    """Read the files that finish all shards.

    Raises
    ------
    DataError
        Some shards are not done.
    """
    done = list_done(store)
    if missing := sorted(set(range(n_shards)) - set(done)):
        raise DataError(
            f"{len(missing)} of {n_shards} shards in {store.url} are not done "
            f"({shortened(missing)}). `fishfeat extract --shards DIR --out {store.url}` goes on "
            "with them."
        )
    with ThreadPoolExecutor(store.n_threads) as pool:
        return list(pool.map(lambda number: read_result(store, number), range(n_shards)))


def read_table(store: Store, result: ShardResult, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the features of a shard, all columns or some.

    Raises
    ------
    DataError
        The file is not the one that the worker wrote.
    """
    try:
        data = store.read(result.file)
    except UnavailableFile as error:
        raise DataError(
            f"{store.url}/{result.file} cannot be read: {error}. If it is lost, delete "
            f"{_name_done(result.number)} and run `fishfeat extract` again: the shard is embedded "
            "again."
        ) from error
    if hashlib.sha256(data).hexdigest() != result.digest:
        raise DataError(
            f"{store.url}/{result.file} is damaged: it is not the file that was written. Delete "
            f"{_name_done(result.number)} and run `fishfeat extract` again: the shard is embedded "
            "again."
        )
    return parse_parquet(data, columns)


def read_vectors(table: pa.Table) -> NDArray[np.float32]:
    """The vectors of a table, float32 (n, dim)."""
    column = table.column(FEATURES).combine_chunks()
    dim = column.type.list_size
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(-1, dim)


def list_leftovers(store: Store, results: Sequence[ShardResult]) -> list[str]:
    """Parquet files that no result names: of workers that were killed, or that were later."""
    named = {result.file for result in results}
    pattern = re.compile(r"features-\d{6,}-[0-9a-f]{16}\.parquet")
    return [name for name in store.list_top()[1] if pattern.fullmatch(name) and name not in named]
