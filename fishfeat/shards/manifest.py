"""The manifest: which images there are, in shards, each a Parquet file.

A folder or bucket holds `manifest.json` and `shard-000000.parquet`, `shard-000001.parquet`, ... A
row is an image, a box in one, or a tar file of images. The rows are sorted by their keys.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from fishfeat.errors import DataError, MissingExtraError
from fishfeat.images.crops import BoxOptions
from fishfeat.images.decode import UnavailableFile
from fishfeat.shards.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Record = TypeVar("Record", bound=msgspec.Struct)
# Number of the format of all JSON files of shards; it rises where keys change.
PROTOCOL = 1
NAME = "manifest.json"


class ImageRow(NamedTuple):
    """A row of a shard.

    Attributes
    ----------
    key
        As in `ImageSet`; of a tar file its path.
    n_bytes, version
        Of the file, as in `StoredFile`; -1 and '' where they are not known.
    label, group, part
        As in `Entry`.
    box
        Left, top, right and bottom of the box that it is; None for the whole image.
    is_relative
        Whether `box` is in shares of the width and the height.
    where
        Where the box stands in the annotation file.
    """

    key: str
    n_bytes: int = -1
    version: str = ""
    label: str = ""
    group: str = ""
    part: str = ""
    box: tuple[float, float, float, float] | None = None
    is_relative: bool = False
    where: str = ""

    @property
    def file_key(self) -> str:
        """Path of its file."""
        return self.key if self.box is None else self.key.rpartition("#")[0]

    @property
    def is_tar(self) -> bool:
        """Whether it is a tar file of images."""
        return self.box is None and self.key.lower().endswith(".tar")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`.

    Attributes
    ----------
    source
        Where the images are; the keys are relative to it.
    name
        Name of the data set.
    n_shards, n_rows, n_bytes
        How many there are, and bytes of the files; 0 before the scan is complete.
    rows
        Rows of a shard; the boxes of one file are in one shard, and a tar file is a shard.
    columns
        As in `ShardScanOptions`; '' for the usual names.
    group_by
        The rule that gave the groups; '' for none or those of the source.
    grouping
        What relates the images of a group, in a sentence; '' where there are no groups.
    include, exclude
        As in `ShardScanOptions`.
    part_depth
        Depth of the folders called train, val or test; None where there are none.
    boxes
        Margin and shape of boxes.
    rejected
        Key -> reason, of images that cannot be listed in a shard.
    is_complete
        Whether all shards are there.
    """

    source: str
    name: str
    rows: int
    n_shards: int = 0
    n_rows: int = 0
    n_bytes: int = 0
    columns: str = ""
    group_by: str = ""
    grouping: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    part_depth: int | None = None
    boxes: BoxOptions = BoxOptions()
    rejected: dict[str, str] = {}
    is_complete: bool = False
    protocol: int = PROTOCOL

    def write(self, store: Store) -> None:
        """Write it."""
        store.write(NAME, format_record(self))


def read_record(store: Store, name: str, kind: type[Record]) -> Record:
    """Read a record from its JSON file.

    Raises
    ------
    DataError
        It is damaged or of a newer version.
    """
    try:
        data = store.read(name)
    except UnavailableFile as error:
        raise DataError(f"{store.url}/{name} cannot be read: {error}.") from error
    try:
        protocol = msgspec.json.decode(data, type=_Numbered).protocol
        if protocol > PROTOCOL:
            raise DataError(
                f"{store.url}/{name} was written by a newer fishfeat. Upgrade fishfeat."
            )
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{store.url}/{name} cannot be read ({error}). Delete it and run the command again "
            "that wrote it."
        ) from error


def format_record(record: msgspec.Struct) -> bytes:
    """A record as the text of its JSON file."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1)


class _Numbered(msgspec.Struct):
    """What every record has."""

    protocol: int = 0


def read_manifest(store: Store) -> Manifest | None:
    """Read the manifest of a place; None where there is none.

    Raises
    ------
    DataError
        As `read_record`.
    """
    return read_record(store, NAME, Manifest) if store.exists(NAME) else None


def require_manifest(store: Store) -> Manifest:
    """Read the manifest of a finished scan.

    Raises
    ------
    DataError
        There is none, or the scan was stopped.
    """
    manifest = read_manifest(store)
    if manifest is None:
        raise DataError(
            f"{store.url} holds no {NAME}. `fishfeat scan URL --shards {store.url}` lists the "
            "images first."
        )
    if not manifest.is_complete:
        raise DataError(
            f"The scan that writes {store.url} is not complete: run `fishfeat scan "
            f"{manifest.source} --shards {store.url}` again. It goes on where it stopped."
        )
    return manifest


def name_shard(number: int) -> str:
    """Name of the Parquet file of a shard."""
    return f"shard-{number:06d}.parquet"


def import_arrow() -> None:
    """Raise a `MissingExtraError` where pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "Shards are Parquet files, which need pyarrow: pip install 'fishfeat[shards]'."
        ) from error


def _make_schema() -> pa.Schema:
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    return pa.schema(
        [
            ("key", text),
            ("n_bytes", number),
            ("version", text),
            ("label", text),
            ("group", text),
            ("part", text),
            ("box", pa.list_(pa.float64(), 4)),
            ("is_relative", pa.bool_()),
            ("where", text),
        ]
    )


def write_shard(store: Store, number: int, rows: Sequence[ImageRow]) -> None:
    """Write the rows of a shard."""
    import pyarrow as pa

    columns = zip(*rows, strict=True)
    schema = _make_schema()
    arrays = [
        pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)
    ]
    store.write(name_shard(number), to_parquet(pa.Table.from_arrays(arrays, schema=schema)))


def read_shard(store: Store, number: int) -> list[ImageRow]:
    """Read the rows of a shard.

    Raises
    ------
    DataError
        The file is damaged or of another kind.
    """
    import pyarrow as pa

    name = name_shard(number)
    try:
        table = parse_parquet(store.read(name))
    except UnavailableFile as error:
        raise DataError(
            f"{store.url}/{name} cannot be read: {error}. Delete the folder and run "
            "`fishfeat scan` again."
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{store.url}/{name} is damaged ({error}). Delete the folder and run `fishfeat scan` "
            "again."
        ) from error
    if table.column_names != list(ImageRow._fields):
        raise DataError(f"{store.url}/{name} has other columns: scan again.")
    rows = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
    return [ImageRow(*row)._replace(box=None if row[6] is None else tuple(row[6])) for row in rows]


def to_parquet(table: pa.Table, *, vectors: str = "") -> bytes:
    """A table as the bytes of a Parquet file; `vectors` names a column of vectors."""
    import pyarrow.parquet as pq

    file = io.BytesIO()
    texts = [name for name in table.column_names if name != vectors]
    # The bytes of the same place in each number are alike: a fifth less, and written sooner.
    encoding = {f"{vectors}.list.element": "BYTE_STREAM_SPLIT"} if vectors else None
    pq.write_table(table, file, compression="zstd", use_dictionary=texts, column_encoding=encoding)
    return file.getvalue()


def parse_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, all of it or some columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = None if columns is None else list(columns)
    return pq.read_table(pa.BufferReader(data), columns=names)
