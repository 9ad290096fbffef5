#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the files that src/data/readers_oracle_test.cc reads, and what an independent reader finds in them.

Python's json and csv modules judge the text formats, pyarrow the others. For each INPUT there is INPUT.expected: a line per
record, {"row": {...}} or {"error": CODE}. Run with the Python of .deps/venv; the output is committed.
"""

import base64
import csv
import datetime
import decimal
import io
import json
import math
import random

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

rng = random.Random(4)
ODD = ["", " ", "a", "ünï", "日本語", "😀 x", "\"quoted\"", "back\\slash", "tab\there", "line\nbreak", "\u2028", "\x7f", "nul\x00", "a,b;c", "'", "0", "null", "é" * 8]


def text():
    return "".join(rng.choice(ODD) for _ in range(rng.randint(0, 2)))


def expect(name, rows):
    with open(name + ".expected", "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def jsonl():
    columns = ["id", "big", "score", "flag", "name", "tags", "meta"]

    def row(i):
        full = {
            "id": rng.choice([0, 1, -1, i, 2**53 + 1, -(2**63), 2**63 - 1]),
            "big": rng.choice([0, 2**64 - 1, i]),
            "score": rng.choice([0, 1.5, -0.0, 1e300, 5e-324, rng.random(), i, 1e21, 123456789012345]),
            "flag": rng.random() < 0.5,
            "name": text(),
            "tags": [text() for _ in range(rng.randint(0, 3))],
            "meta": {"a": rng.randint(-9, 9), "b": {"c": [rng.random() for _ in range(2)], "d": text()}},
        }
        for key in columns:
            if rng.random() < 0.1:
                full[key] = None
            elif rng.random() < 0.1:
                del full[key]
        keys = list(full)
        rng.shuffle(keys)
        return {key: full[key] for key in keys}

    bad = [
        b'{"id": 1,}', b"{'id': 1}", b'{"id": 01}', b'{"id": 1} x', b'{"id": .5}', b'{"id": 1', b"[1]", b'"x"', b"nul", b'{"name": "a\x01"}',
        b'{"name": "\\x"}', b'{"name": "\xff"}', b'{"name": "\xc0\xaf"}', b'{"name": "\xed\xa0\x80"}', b'{"name": "\\ud800"}', b'{"name": "\\udc00"}',
        b'{"name": "\\ud800\\u0041"}', b'{"id": NaN}', b'{"a":' * 200 + b"1" + b"}" * 200, b'{"id": 1}\x00', b'{"name": "\x1f 0123456789abcdef0123456789"}',
        b'{"name": "0123456789abcdef0123456789 \x1a"}', b'{"id": "seven"}', b'{"meta": {"a": "x"}}', b'{"flag": 1}', b'{"tags": {}}', b'{"id": 1e999}',
    ]
    codes = {11: "bad_utf8", 12: "bad_utf8", 13: "bad_utf8", 14: "bad_utf8", 15: "bad_utf8", 16: None, 18: "too_deep"}
    codes.update({i: "bad_value" for i in range(22, 26)})
    lines, rows, bad_left = [], [], list(enumerate(bad))
    for i in range(240):
        if bad_left and rng.random() < 0.2:
            place, line = bad_left.pop(0)
            lines.append(line)
            rows.append({"error": codes.get(place, "bad_json") or "*"})
            continue
        value = row(i)
        line = json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=rng.choice([(",", ":"), (" , ", " : ")]))
        if rng.random() < 0.05:  # a key that stands twice: the last one counts
            line = '{"id": 99, ' + line[1:] if len(value) and "id" in value else line
        again = json.loads(line)
        lines.append(line.encode())
        rows.append({"row": {key: again.get(key) for key in columns}})
        if rng.random() < 0.05:
            lines.append(rng.choice([b"", b"  ", b"\r"]))
    assert not bad_left
    with open("rows.jsonl", "wb") as out:
        out.write(b"".join(line + rng.choice([b"\n", b"\r\n"]) for line in lines))
    expect("rows.jsonl", rows)
    # The same records as one array; those that cannot be told apart in an array are left out.
    good = [(line, row) for line, row in zip([l for l in lines if l.strip()], rows) if "row" in row][:100]
    with open("rows.json", "wb") as out:
        out.write(b"\xef\xbb\xbf [\n" + rng.choice([b",", b" ,\n"]).join(line for line, _ in good) + b"\n]\n\n")
    expect("rows.json", [row for _, row in good])


def csv_files():
    names = ["id", "score", "text", "flag", "code", "empty"]
    rows = []
    for i in range(300):
        cell = rng.choice(ODD[1:]).replace("\x00", "") + rng.choice(["", ",", '"', "\n", "\r\n"])
        rows.append([str(i - 5), rng.choice(["", repr(rng.random()), str(i)]), cell, rng.choice(["true", "false", ""]), "%03d" % i, ""])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows(rows)
    body = buffer.getvalue()
    expected = []
    for row in list(csv.reader(io.StringIO(body, newline="")))[1:]:
        number = None if row[1] == "" else float(row[1])
        flag = {"true": True, "false": False, "": None}[row[3]]
        expected.append({"row": {"id": int(row[0]), "score": number, "text": row[2], "flag": flag, "code": row[4], "empty": None}})
    body = body.encode()
    bad = [b'1,2,"open text" tail,true,001,\r\n', b"1,2\r\n", b"1,2,3,4,5,6,7\r\n", b"1,2,\xff,true,001,\r\n", b"x,2,t,true,001,\r\n", b'1,2,t,true,001,"never closed\r\n']
    expected += [{"error": code} for code in ["bad_csv", "bad_csv", "bad_csv", "bad_utf8", "bad_value", "bad_csv"]]
    with open("rows.csv", "wb") as out:
        out.write(body + b"".join(bad))
    expect("rows.csv", expected)


def as_json(value, kind):
    """The value as docs say that JSON holds it."""
    if value is None:
        return None
    if pa.types.is_floating(kind):
        value = float(value)
        return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if pa.types.is_date(kind):
        return value.isoformat()
    if pa.types.is_struct(kind):
        return {field.name: as_json(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return {key: as_json(item, kind.item_type) for key, item in value}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [as_json(item, kind.value_type) for item in value]
    return value


def table(n):
    def maybe(make):
        return [None if rng.random() < 0.15 else make(i) for i in range(n)]

    columns = {
        "bool": pa.array(maybe(lambda i: i % 2 == 0)),
        "float": pa.array(maybe(lambda i: rng.randint(-999, 999) / 8), pa.float32()),
        "double": pa.array(maybe(lambda i: rng.choice([rng.random(), math.inf, -math.inf, math.nan, -0.0, 1e300]))),
        "string": pa.array(maybe(lambda i: text())),
        "large_string": pa.array(maybe(lambda i: text()), pa.large_string()),
        "binary": pa.array(maybe(lambda i: rng.randbytes(i % 5)), pa.binary()),
        "fixed": pa.array(maybe(lambda i: rng.randbytes(3)), pa.binary(3)),
        "date": pa.array(maybe(lambda i: datetime.date(1970, 1, 1) + datetime.timedelta(days=i * 97 - 5000)), pa.date32()),
        "decimal": pa.array(maybe(lambda i: decimal.Decimal(i * 7919 - 1000).scaleb(-2)), pa.decimal128(10, 2)),
        "list": pa.array(maybe(lambda i: [text() for _ in range(i % 4)])),
        "struct": pa.array(maybe(lambda i: {"a": i, "b": None if i % 3 else {"c": [i, None]}}), pa.struct([("a", pa.int32()), ("b", pa.struct([("c", pa.list_(pa.int64()))]))])),
        "map": pa.array(maybe(lambda i: [("k%d" % j, j) for j in range(i % 3)]), pa.map_(pa.string(), pa.int64())),
        "dictionary": pa.array(maybe(lambda i: rng.choice(ODD))).dictionary_encode(),
        "nothing": pa.nulls(n, pa.string()),
    }
    for bits in (8, 16, 32, 64):
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        columns["int%d" % bits] = pa.array(maybe(lambda i: rng.choice([low, high, 0, rng.randint(low, high)])), "int%d" % bits)
        columns["uint%d" % bits] = pa.array(maybe(lambda i: rng.choice([0, 2**bits - 1, rng.randint(0, high)])), "uint%d" % bits)
    return pa.table(columns)


def tables():
    data = table(60)
    rows = []
    for row in data.to_pylist():
        rows.append({"row": {name: as_json(row[name], data.schema.field(name).type if name != "dictionary" else pa.string()) for name in data.schema.names}})
    pq.write_table(data, "types.parquet", row_group_size=17, compression="zstd", write_page_checksum=True)
    expect("types.parquet", rows)
    # An IPC file holds one dictionary for all its batches.
    with ipc.new_file("types.arrow", data.schema, options=ipc.IpcWriteOptions(compression="zstd")) as out:
        out.write_table(data, max_chunksize=13)
    extras = pa.table({
        "view": pa.array(["short", None, "a string longer than twelve bytes"], pa.string_view()),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(range(16))] * 3, pa.binary(16))),
        "nested": pa.array([[{"d": "x"}], [], None], pa.list_(pa.struct([("d", pa.dictionary(pa.int32(), pa.string()))]))),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["r", None])),
    })
    with ipc.new_stream("extras.arrows", extras.schema) as out:
        out.write_table(extras, max_chunksize=2)
    uuid = base64.b64encode(bytes(range(16))).decode()
    expect("extras.arrows", [
        {"row": {"view": "short", "uuid": uuid, "nested": [{"d": "x"}], "runs": "r"}},
        {"row": {"view": None, "uuid": uuid, "nested": [], "runs": "r"}},
        {"row": {"view": "a string longer than twelve bytes", "uuid": uuid, "nested": None, "runs": None}},
    ])


jsonl()
csv_files()
tables()
