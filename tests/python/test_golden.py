# SPDX-License-Identifier: Apache-2.0
"""Runs tests/golden/*.case through the real CLI; its README says what a case is."""

import io
import json
import re

import pyarrow.ipc
import pyarrow.json
import pyarrow.parquet
import pytest
from conftest import ROOT, read_rows

CASES = sorted((ROOT / "tests/golden").glob("*.case"))
OUTPUT = "output: {path: out, format: jsonl, rows: [ok, error, skipped]}\n"


def sections(text):
    parts = re.split(r"^== (\S+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def write_input(path, text):
    """Writes a section as the file that its name says: compressed text, or a table of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".gz", ".zst"):
        with pyarrow.output_stream(path, compression="detect") as file:
            file.write(text.encode())
    elif path.suffix in (".parquet", ".arrow", ".arrows"):
        table = pyarrow.json.read_json(io.BytesIO(text.encode()))
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, path)
            return
        open_writer = pyarrow.ipc.new_file if path.suffix == ".arrow" else pyarrow.ipc.new_stream
        with open_writer(path, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text(text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_case(millstream, tmp_path, case):
    found = sections(case.read_text())
    job = found.pop("job")
    expected_rows = found.pop("rows", None)
    expected_error = found.pop("error", None)
    expected_files = {name: found.pop(name) for name in list(found) if re.match(r"out[/.]", name)}
    has_output = re.search("^output:", job, re.MULTILINE)
    (tmp_path / "job.yaml").write_text(job if has_output else job + OUTPUT)
    for name, text in found.items():
        write_input(tmp_path / name, text)
    for name in found:
        if name.endswith(".yaml"):
            millstream("run", tmp_path / name)
    if expected_error is not None:
        said = millstream("run", tmp_path / "job.yaml", exit_code=1).stderr
        for line in expected_error.splitlines():
            assert line in said
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]
        return
    millstream("run", tmp_path / "job.yaml")
    assert expected_rows is not None or expected_files
    if expected_rows is not None:
        (output,) = (path for path in tmp_path.glob("out*") if path.suffix != ".millstream")
        rows = read_rows(output)
        for row in rows:
            del row["_source"]
        # As text: 1, 1.0 and true are equal in Python, and the order of columns counts.
        assert list(map(json.dumps, rows)) == [json.dumps(json.loads(line)) for line in expected_rows.splitlines()]
    for name, text in expected_files.items():
        assert (tmp_path / name).read_text() == text


# Codes that no job, row or model of a person brings about, and where they are shown instead.
ENGINE_CODES = {
    "grammar_failed": "src/engine/generation_test.cc",
    "engine_failed": "src/engine/generation.cc",  # not shown: no token of a model fails to decode
    "crash": "src/engine/hosted_engine_test.cc",
    "hang": "src/engine/hosted_engine_test.cc",
    "oom": "src/engine/hosted_engine_test.cc",
    "bad_request": "tests/python/test_openai.py",
    "prompt_too_long": "tests/python/test_openai.py",
    "content_filter": "tests/python/test_openai.py",
    "empty_choice": "tests/python/test_openai.py",
    "timeout": "src/openai/dispatch_test.cc",
    "fetch": "src/openai/dispatch_test.cc",
    "runaway": "tests/python/test_generate.py",
}


def test_each_error_code_has_a_case():
    documented = re.findall(r"^\| `(\w+)`", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    shown = set()
    for case in CASES:
        shown |= set(re.findall(r'"code": "(\w+)"', sections(case.read_text()).get("rows", "")))
    tables = (ROOT / "tests/python/test_bad_input.py").read_text()
    shown |= {code for code in documented if f'"{code}"' in tables}
    assert set(documented) - shown == set(ENGINE_CODES)
    for code, test in ENGINE_CODES.items():
        assert f'"{code}"' in (ROOT / test).read_text()
