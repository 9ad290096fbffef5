# SPDX-License-Identifier: Apache-2.0
"""State folders of the formats that earlier versions wrote are read, verified and gone on with."""

import json
import pathlib
import shutil

import pytest
from conftest import ROOT, read_rows

PLACE = pathlib.Path("/tmp/millstream-ledger-v1")  # which their plans name


@pytest.fixture
def kept():
    shutil.rmtree(PLACE, ignore_errors=True)  # of a test that was killed
    yield shutil.copytree(ROOT / "tests/data/ledger-v1", PLACE)
    shutil.rmtree(PLACE)


def expected(record):
    if record % 8 == 4:
        return "error"
    if record % 3 == 0:
        return "skipped"
    return "error" if record % 5 == 0 else "ok"


def check_rows(output):
    rows = read_rows(output)
    assert [row["_source"]["record"] for row in rows] == list(range(1, 25))
    assert [row["_status"] for row in rows] == [expected(record) for record in range(1, 25)]
    assert all(row["title"] == f"ROW {row['id']}" for row in rows if row["_status"] == "ok")


def test_a_finished_job_of_format_1_is_whole_and_has_nothing_to_do(millstream, kept):
    assert json.loads((kept / "finished.millstream/job.json").read_text())["format"] == 1
    said = millstream("verify", kept / "finished", "--deep").stdout
    assert said.startswith("24 rows: 12 ok, 5 error, 7 skipped")
    assert "nothing to do: 24 of 24 rows done" in millstream("run", kept / "finished.yaml").stderr
    check_rows(kept / "finished")


def test_an_interrupted_job_of_format_1_goes_on(millstream, kept):
    parts = {part: part.read_bytes() for part in (kept / "interrupted").iterdir()}
    assert 0 < len(parts) < 4
    assert "18 rows are not done yet" in millstream("verify", kept / "interrupted", "--deep").stdout
    assert "resuming: " in millstream("run", kept / "interrupted.yaml").stderr
    assert {part: part.read_bytes() for part in parts} == parts
    check_rows(kept / "interrupted")
    millstream("verify", kept / "interrupted", "--deep")
