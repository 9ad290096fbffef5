# SPDX-License-Identifier: Apache-2.0
"""Whatever format a job writes, the readers that people use open its folder as it is and find the rows."""

import csv
import datetime
import decimal
import json

import datasets
import duckdb
import pandas
import polars
import pyarrow
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet
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


DAY = datetime.date(1969, 12, 31)
TIME = datetime.time(1, 2, 3, 4000)
NOW = datetime.datetime(2262, 1, 1, 1, 2, 3, 456000)
OF_TYPES = [
    (pyarrow.int8(), [-128, 127, None]),
    (pyarrow.uint8(), [0, 255, None]),
    (pyarrow.int16(), [-(2**15), 1, None]),
    (pyarrow.uint16(), [2**16 - 1, 0, None]),
    (pyarrow.int32(), [-(2**31), 1, None]),
    (pyarrow.uint32(), [2**32 - 1, 0, None]),
    (pyarrow.int64(), [-(2**63), 2**63 - 1, None]),
    (pyarrow.uint64(), [2**64 - 1, 0, None]),
    (pyarrow.float16(), [1.5, -0.0, None]),
    (pyarrow.float32(), [0.1, float("inf"), None]),
    (pyarrow.float64(), [0.1, 5e-324, None]),
    (pyarrow.bool_(), [True, False, None]),
    (pyarrow.string(), ["", "snow ☃", None]),
    (pyarrow.large_string(), ["", "snow ☃", None]),
    (pyarrow.binary(), [b"", b"\xff\0", None]),
    (pyarrow.large_binary(), [b"", b"\xff\0", None]),
    (pyarrow.binary(3), [b"abc", b"\0\0\0", None]),
    (pyarrow.date32(), [DAY, datetime.date(9999, 1, 1), None]),
    (pyarrow.time32("ms"), [TIME, datetime.time(0), None]),
    (pyarrow.time64("us"), [TIME, datetime.time(0), None]),
    (pyarrow.timestamp("ms"), [NOW, None, None]),
    (pyarrow.timestamp("us", "Europe/Berlin"), [NOW, None, None]),
    (pyarrow.timestamp("ns"), [2**62, -1, None]),
    (pyarrow.duration("us"), [datetime.timedelta(1), None, None]),
    (pyarrow.decimal128(38, 3), [decimal.Decimal("12345678901234567890.123"), decimal.Decimal("-0.001"), None]),
    (pyarrow.decimal256(76, 0), [decimal.Decimal("1" * 60), decimal.Decimal(-1), None]),
    (pyarrow.list_(pyarrow.int64()), [[1, None], [], None]),
    (pyarrow.list_(pyarrow.float32(), 2), [[1.0, 2.0], [3.0, 4.0], None]),
    (pyarrow.struct({"a": pyarrow.int32(), "b": pyarrow.list_(pyarrow.string())}), [{"a": 1, "b": ["x"]}, {}, None]),
    (pyarrow.map_(pyarrow.string(), pyarrow.int64()), [[("k", 1)], [], None]),
    (pyarrow.null(), [None, None, None]),
]


def test_every_type_survives_from_parquet_to_parquet(millstream, tmp_path):
    columns = {str(type_): pyarrow.array(values, type_) for type_, values in OF_TYPES}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "in.parquet")
    (tmp_path / "job.yaml").write_text("input: in.parquet\noutput: out.parquet\n")
    millstream("run", tmp_path / "job.yaml")
    given = pyarrow.parquet.read_table(tmp_path / "in.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet").select(list(columns))
    assert found.schema.equals(given.schema) and found.equals(given)


@pytest.mark.parametrize("path", ["out.jsonl", "out"])
@pytest.mark.parametrize("depth", [128, 129])
def test_a_value_as_deep_as_any_is_read_back_and_a_deeper_one_is_an_error_of_its_row(millstream, tmp_path, path, depth):
    (tmp_path / "in.jsonl").write_text(f'{{"depth": {depth}}}\n{{"depth": 1}}\n')
    nested = (
        "{% set at = namespace(value=1) %}{% for i in range(depth) %}{% set at.value = [at.value] %}{% endfor %}"
        "{{ at.value|tojson }}"
    )
    (tmp_path / "job.yaml").write_text(
        f"input: in.jsonl\nsteps:\n  - set: {{deep: {{value: '{nested}', type: json}}}}\n"
        f"output: {{path: {path}, format: jsonl}}\n"
    )
    millstream("run", tmp_path / "job.yaml")
    counts = "1 ok, 1 error" if depth == 129 else "2 ok, 0 error"
    assert counts in millstream("verify", tmp_path / path, "--deep").stdout
