"""A lake as rules would have left it: the same summaries, and only the events that the rules would store.

It is a temporary folder with links to the lake's own files and rewritten files of events, so that anything that reads a
lake can read it. The lake itself is not changed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trailsift.columns.arrays import Floats
from trailsift.columns.arrow import CHUNK_SCHEMA, identities
from trailsift.ingest.exemplars import RANK, candidates, new_lines
from trailsift.ingest.sift import LINE, LOOKED_AT, ColumnarRules
from trailsift.lake import forms, index
from trailsift.lake.disk import write_errors
from trailsift.lake.home import fetch_files
from trailsift.lake.index import File, Snapshot
from trailsift.lake.open import open_snapshot
from trailsift.lake.parquet import data_errors, read_columns
from trailsift.lake.settings import LAKE_FILE, read_settings
from trailsift.rules import Rules
from trailsift.schema import EVENTS, TABLES
from trailsift.storage import LocalStorage, folder_storage
from trailsift.storage.links import following

_COLUMNS = list(dict.fromkeys((*LOOKED_AT, *LINE)))
_FILE, _ROW = "rule_number", "row"


@contextmanager
def filtered_lake(root: Path, rules: Rules) -> Iterator[Path]:
    """Yield the folder of such a lake; it is removed afterwards. Raise LakeError if there is no lake, or no room."""
    root = root.resolve()
    snapshot = open_snapshot(root)
    files = snapshot.files(EVENTS.name)
    forms.check_links(root, files)
    folder = Path(tempfile.mkdtemp(prefix="trailsift-filtered-")).resolve()
    try:
        with write_errors(folder):
            _copy(snapshot, folder, files, weights(root, files, rules))
        with following(root):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def weights(root: Path, files: list[File], rules: Rules) -> list[Floats]:
    """Return the weight of each row of each file under the rules; 0 if it would not be stored."""
    columnar = ColumnarRules(rules)
    out: list[Floats] = []
    held: list[pa.Table] = []
    coded = [name for name in _COLUMNS if pa.types.is_dictionary(CHUNK_SCHEMA.field(name).type)]
    for number, file in enumerate(files):
        names = [*_COLUMNS, "event_id"]
        table = read_columns(root, file.path, names, coded)
        ids = identities(table.column("event_id").to_pylist())
        table = table.select(_COLUMNS)
        decided = columnar.decide(table, ids)
        out.append(decided.weight.copy())
        first, rank = columnar.exemplars(table, ids, decided)
        if len(first):
            picked = candidates(table.take(pa.array(first)), rank, np.full(len(first), number, np.int64))
            held.append(picked.append_column(_ROW, pa.array(first)))
    if held:
        rows = pa.concat_tables(held).combine_chunks()
        best = new_lines(rows, np.asarray(rows.column(RANK)))
        file_number, row = np.asarray(rows.column(_FILE))[best], np.asarray(rows.column(_ROW))[best]
        for number in np.unique(file_number).tolist():
            out[number][row[file_number == number]] = 1.0
    return out


def _copy(snapshot: Snapshot, folder: Path, files: list[File], weight: list[Floats]) -> None:
    root = snapshot.root
    fetch_files(root, [file for name in TABLES for file in snapshot.files(name)])
    for name in TABLES:
        if name != EVENTS.name and (root / name).is_dir():
            (folder / name).symlink_to(root / name, target_is_directory=True)
    # Verdicts and ids of findings hold here too; what is stored about this lake stays here.
    storage = folder_storage(root)
    for stored in storage.list("findings"):
        LocalStorage(folder).write(stored.path, storage.read(stored.path))
    settings = read_settings(root) | {"location": str(folder)}
    (folder / LAKE_FILE).write_text(json.dumps(settings), "utf-8")
    index.copy_catalog(snapshot, folder)
    for file, kept in zip(files, weight, strict=True):
        with data_errors(root / file.path):
            table = pq.ParquetFile(root / file.path).read()
        rows = np.flatnonzero(kept)
        place = table.schema.get_field_index("weight")
        before = np.asarray(table.column(place))
        table = table.set_column(place, table.schema.field(place), pa.chunked_array([pa.array(before * kept)]))
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.take(pa.array(rows)), folder / file.path, compression="zstd", compression_level=1)
