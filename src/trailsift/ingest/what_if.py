"""A lake as rules would have left it: the same summaries, and of the events those that the rules would store.

It is made in a temporary folder, of links to the lake's own files and of events written anew, so that whatever reads a
lake can be asked what it would see there. Nothing of the lake itself is changed.
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

from trailsift.columns.arrow import CHUNK_SCHEMA, identities
from trailsift.ingest.exemplars import RANK, candidates, new_lines
from trailsift.ingest.sift import LINE, LOOKED_AT, ColumnarRules, Floats
from trailsift.lake import index
from trailsift.lake.disk import write_errors
from trailsift.lake.index import File
from trailsift.lake.open import open_snapshot
from trailsift.lake.settings import LAKE_FILE
from trailsift.rules import Rules
from trailsift.schema import EVENTS

_COLUMNS = list(dict.fromkeys((*LOOKED_AT, *LINE)))
_FILE, _ROW = "rule_number", "row"


@contextmanager
def thinned(root: Path, rules: Rules) -> Iterator[Path]:
    """The folder of such a lake; it is removed afterwards. LakeError where there is no lake, or no room."""
    root = root.resolve()
    files = open_snapshot(root).files(EVENTS.name)
    folder = Path(tempfile.mkdtemp(prefix="trailsift-thinned-")).resolve()
    try:
        with write_errors(folder):
            _copy(root, folder, files, weights(root, files, rules))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def weights(root: Path, files: list[File], rules: Rules) -> list[Floats]:
    """For each file what the rules make of its rows: 0 where a row is not stored, else how many it stands for."""
    sifting = ColumnarRules(rules)
    out: list[Floats] = []
    held: list[pa.Table] = []
    coded = [name for name in _COLUMNS if pa.types.is_dictionary(CHUNK_SCHEMA.field(name).type)]
    for number, file in enumerate(files):
        names = [*_COLUMNS, "event_id"]
        table = pq.read_table(root / file.path, columns=names, read_dictionary=coded, partitioning=None)
        ids = identities(table.column("event_id").to_pylist())
        table = table.select(_COLUMNS)
        decided = sifting.decide(table, ids)
        out.append(decided.weight.copy())
        first, rank = sifting.firsts(table, ids, decided)
        if len(first):
            rows = candidates(table.take(pa.array(first)), rank, np.full(len(first), number, np.int64))
            held.append(rows.append_column(_ROW, pa.array(first)))
    if held:
        whole = pa.concat_tables(held).combine_chunks()
        best = new_lines(whole, np.asarray(whole.column(RANK)))
        where, row = np.asarray(whole.column(_FILE))[best], np.asarray(whole.column(_ROW))[best]
        for number in np.unique(where).tolist():
            out[number][row[where == number]] = 1.0
    return out


def _copy(root: Path, folder: Path, files: list[File], weight: list[Floats]) -> None:
    for one in root.iterdir():
        if one.is_dir() and one.name != EVENTS.name:
            (folder / one.name).symlink_to(one, target_is_directory=True)
    settings = json.loads((root / LAKE_FILE).read_text("utf-8")) | {"location": str(folder)}
    (folder / LAKE_FILE).write_text(json.dumps(settings), "utf-8")
    index.copy_catalog(root, folder)
    for file, kept in zip(files, weight, strict=True):
        table = pq.ParquetFile(root / file.path).read()
        rows = np.flatnonzero(kept)
        place = table.schema.get_field_index("weight")
        known = np.asarray(table.column(place))
        table = table.set_column(place, table.schema.field(place), pa.chunked_array([pa.array(known * kept)]))
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.take(pa.array(rows)), folder / file.path, compression="zstd", compression_level=1)
