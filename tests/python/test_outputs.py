# SPDX-License-Identifier: Apache-2.0
"""Whatever format a job writes, the readers that people use open its folder as it is and find the rows."""

import csv
import json

import datasets
import duckdb
import pandas
import polars
import pyarrow
import pyarrow.csv
import pyarrow.dataset
import pytest

ROWS = [
    {"id": 1, "text": "plain", "score": 0.1, "big": 2**53 + 1, "ok": True},
    {"id": 2, "text": 'quotes " and, commas', "score": None, "big": -(2**62), "ok": False},
    {"id": 3, "text": "two\nlines", "score": 1e300, "big": 0, "ok": None},
    {"id": 4, "text": "", "score": -2.5, "big": 4, "ok": True},
    {"id": 5, "text": None, "score": 3.0, "big": 7, "ok": True},
    {"id": 6, "text": "snow ☃ and 🙂", "score": 1 / 3, "big": 2**63 - 1, "ok": False},
]
COLUMNS = list(ROWS[0])
SUFFIXES = {"parquet": "parquet", "jsonl": "jsonl", "csv": "csv", "arrow": "arrow"}


@pytest.fixture(scope="module", params=SUFFIXES)
def output(request, millstream, tmp_path_factory):
    """The output folder of a job that copies ROWS in several parts, and its format."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "job.yaml").write_text(
        "name: copy\ninput: {path: rows.jsonl}\nsteps:\n  - set: {length: \"{{ text|default('')|length }}\"}\n"
        f"output: {{path: out, format: {request.param}}}\nsplit_rows: 4\n"
    )
    millstream("run", folder / "job.yaml")
    return folder / "out", request.param


def plain(rows):
    """Rows of any reader as ROWS has them: only its columns, NaN and NA as None, numbers as Python's."""
    return [{name: scalar(row[name]) for name in COLUMNS} for row in rows]


def scalar(value):
    if value is None or value is pandas.NA or value != value:
        return None
    return value.item() if hasattr(value, "item") else value


def test_folder_holds_parts_and_nothing_else(output):
    folder, suffix = output
    assert sorted(path.name for path in folder.iterdir()) == [f"part-{n:06}.{SUFFIXES[suffix]}" for n in (0, 1)]


def test_pyarrow(output):
    folder, suffix = output
    kind = {"jsonl": "json", "arrow": "ipc"}.get(suffix, suffix)
    if kind == "csv":
        options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
        parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
        kind = pyarrow.dataset.CsvFileFormat(convert_options=options, parse_options=parsing)
    table = pyarrow.dataset.dataset(folder, format=kind).to_table()
    assert plain(table.to_pylist()) == ROWS


def test_pandas(output):
    folder, suffix = output
    parts = sorted(folder.iterdir())
    if suffix == "parquet":
        frame = pandas.read_parquet(folder, dtype_backend="pyarrow")
    elif suffix == "jsonl":
        frame = pandas.concat(
            pandas.read_json(part, lines=True, precise_float=True, dtype_backend="pyarrow") for part in parts
        )
    elif suffix == "csv":
        frame = pandas.concat(pandas.read_csv(part, dtype_backend="pyarrow", keep_default_na=False) for part in parts)
        assert list(frame["id"]) == [row["id"] for row in ROWS]
        assert list(frame["text"]) == [row["text"] or "" for row in ROWS]  # pandas cannot tell "" from null
        return
    else:
        frame = pandas.concat(pandas.read_feather(part, dtype_backend="pyarrow") for part in parts)
    assert plain(frame.to_dict("records")) == ROWS


def test_duckdb(output):
    folder, suffix = output
    if suffix == "arrow":
        source = duckdb.from_arrow(pyarrow.dataset.dataset(folder, format="ipc").to_table())
    elif suffix == "csv":
        # Only quoting tells "" from null, and DuckDB has to be told.
        source = duckdb.sql(f"FROM read_csv('{folder}/*.csv', allow_quoted_nulls = false)")
    else:
        source = duckdb.sql(f"FROM '{folder}/*.{SUFFIXES[suffix]}'")
    rows = source.order("id").select(*COLUMNS).fetchall()
    assert plain(dict(zip(COLUMNS, row, strict=True)) for row in rows) == ROWS


def test_polars(output):
    folder, suffix = output
    if suffix == "parquet":
        frame = polars.read_parquet(folder)
    elif suffix == "jsonl":
        frame = polars.scan_ndjson(folder).collect()
    elif suffix == "csv":
        frame = polars.scan_csv(folder).collect()
    else:
        frame = polars.scan_ipc(folder).collect()
    assert plain(frame.to_dicts()) == ROWS


def test_datasets(output, tmp_path):
    folder, suffix = output
    kind = {"jsonl": "json"}.get(suffix, suffix)
    loaded = datasets.load_dataset(kind, data_dir=str(folder), split="train", cache_dir=str(tmp_path))
    if suffix == "csv":  # read by pandas
        assert [row["id"] for row in loaded] == [row["id"] for row in ROWS]
        return
    assert plain(loaded) == ROWS


def test_csv_of_the_standard_library(output):
    folder, suffix = output
    if suffix != "csv":
        pytest.skip("another format")
    rows = []
    for part in sorted(folder.iterdir()):
        with open(part, newline="") as file:
            rows += list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [row["text"] or "" for row in ROWS]
    assert [row["score"] and float(row["score"]) for row in rows] == [
        "" if row["score"] is None else row["score"] for row in ROWS
    ]
