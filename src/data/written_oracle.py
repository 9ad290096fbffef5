# SPDX-License-Identifier: Apache-2.0
"""Reads one table in our four formats with other people's readers and compares what they find.

Called by writer_test.cc with the folder of written.{parquet,arrow,jsonl,csv}.
"""

import base64
import csv
import datetime
import decimal
import json
import math
import sys

import numpy
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}


def as_json(value, type_):
    """The value as json.loads with Decimals for floats would give it, by the rules of json_value.h."""
    if value is None:
        return None
    if pa.types.is_list(type_):
        return [as_json(item, type_.value_type) for item in value]
    if pa.types.is_map(type_):
        pairs = [(key, as_json(item, type_.item_type)) for key, item in value]
        return dict(pairs) if pa.types.is_string(type_.key_type) else [list(pair) for pair in pairs]
    if pa.types.is_struct(type_):
        return {field.name: as_json(value[field.name], field.type) for field in type_}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        if type_.tz is not None:
            value = value.astimezone(datetime.UTC)
        return value.isoformat(timespec=UNITS[type_.unit]).replace("+00:00", "Z")
    if isinstance(value, datetime.time):
        return value.isoformat(timespec=UNITS[type_.unit])
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value // datetime.timedelta(**{UNITS[type_.unit]: 1})
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return numpy.float32(value) if pa.types.is_float32(type_) else value
    return value


def same(ours, expected):
    if isinstance(expected, list):
        return isinstance(ours, list) and len(ours) == len(expected) and all(map(same, ours, expected))
    if isinstance(expected, dict):
        return (
            isinstance(ours, dict)
            and list(ours) == list(expected)
            and all(same(ours[key], expected[key]) for key in expected)
        )
    if isinstance(expected, numpy.float32):
        return isinstance(ours, decimal.Decimal) and numpy.float32(str(ours)) == expected
    if isinstance(expected, float):
        return isinstance(ours, decimal.Decimal) and float(ours) == expected
    if isinstance(expected, decimal.Decimal):
        return isinstance(ours, (int, decimal.Decimal)) and str(decimal.Decimal(ours)) == str(expected)
    return type(ours) is type(expected) and ours == expected


def check(name, row, column, ours, expected):
    if not same(ours, expected):
        sys.exit(f"{name}, row {row}, column {column}: {ours!r}, expected {expected!r}")


def loads(text):
    return json.loads(text, parse_float=decimal.Decimal)


def main(folder):
    table = pa.parquet.read_table(f"{folder}/written.parquet")
    with pa.OSFile(f"{folder}/written.arrow") as file:
        arrow_table = pa.ipc.open_file(file).read_all()
    # Arrow files hold the values of dictionaries.
    plain = pa.schema(
        [
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in table.schema
        ]
    )
    if not arrow_table.schema.equals(plain):
        sys.exit(f"schemas differ: {arrow_table.schema} and {table.schema}")
    if str(arrow_table.to_pylist()) != str(table.to_pylist()):  # as text, since NaN differs from itself
        sys.exit("the Arrow file and the Parquet file differ")
    if pa.parquet.read_metadata(f"{folder}/written.parquet").metadata[b"millstream.split"] != b"7":
        sys.exit("the Parquet file lost its metadata")
    expected = [
        {field.name: as_json(row[field.name], field.type) for field in table.schema} for row in table.to_pylist()
    ]

    with open(f"{folder}/written.jsonl", encoding="utf-8", newline="\n") as file:
        lines = [loads(line) for line in file]
    assert len(lines) == len(expected), len(lines)
    for i, (ours, row) in enumerate(zip(lines, expected, strict=True)):
        assert list(ours) == list(row), list(ours)
        for name in row:
            check("written.jsonl", i, name, ours[name], row[name])

    with open(f"{folder}/written.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == table.schema.names, rows[0]
    assert len(rows) == len(expected) + 1, len(rows)
    for i, (cells, row) in enumerate(zip(rows[1:], expected, strict=True)):
        for cell, (name, value) in zip(cells, row.items(), strict=True):
            if value is None:
                check("written.csv", i, name, cell, "")
            elif isinstance(value, str):
                check("written.csv", i, name, cell, value)
            else:
                check("written.csv", i, name, loads(cell), value)

    # Only a reader that looks at the quotes can tell a null from an empty string.
    options = pa.csv.ConvertOptions(
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        include_columns=["text"],
        column_types={"text": pa.string()},
    )
    texts = pa.csv.read_csv(
        f"{folder}/written.csv", convert_options=options, parse_options=pa.csv.ParseOptions(newlines_in_values=True)
    )["text"]
    if not texts.combine_chunks().equals(table["text"].combine_chunks()):
        sys.exit("pyarrow reads other texts from the CSV file")


main(sys.argv[1])
