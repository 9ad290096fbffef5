# SPDX-License-Identifier: Apache-2.0
"""Runs tests/golden/*.case through the real CLI; its README says what a case is."""

import json
import re

import pytest
from conftest import ROOT

CASES = sorted((ROOT / "tests/golden").glob("*.case"))


def sections(text):
    parts = re.split(r"^== (\S+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_case(millstream, tmp_path, case):
    found = sections(case.read_text())
    expected_rows = found.pop("rows", None)
    expected_error = found.pop("error", None)
    (tmp_path / "job.yaml").write_text(
        found.pop("job") + "output: {path: out, format: jsonl, rows: [ok, error, skipped]}\n"
    )
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    if expected_error is not None:
        said = millstream("run", tmp_path / "job.yaml", exit_code=1).stderr
        for line in expected_error.splitlines():
            assert line in said
        assert not (tmp_path / "out").exists()
        return
    millstream("run", tmp_path / "job.yaml")
    rows = [json.loads(line) for part in sorted((tmp_path / "out").iterdir()) for line in part.read_text().splitlines()]
    for row in rows:
        del row["_source"]
    assert rows == [json.loads(line) for line in expected_rows.splitlines()]
