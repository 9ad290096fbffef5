# SPDX-License-Identifier: Apache-2.0
"""The examples run with the real model, and their outputs have the promised shape."""

import json

import pyarrow.csv
import pyarrow.parquet
import pytest
from conftest import ROOT


@pytest.fixture
def run_example(millstream, tmp_path):
    def run(name):
        millstream("run", ROOT / "examples" / f"{name}.yaml", "--output", tmp_path / name)
        return sorted((tmp_path / name).iterdir())

    return run


def test_classify_answers_with_a_label(run_example):
    table = pyarrow.parquet.read_table(run_example("classify")[0])
    assert table.num_rows == 12
    assert set(table.column("_status").to_pylist()) == {"ok"}
    assert set(table.column("topic").to_pylist()) <= {"sport", "weather", "music", "food"}


def test_extract_gives_typed_columns(run_example):
    rows = [json.loads(line) for line in run_example("extract")[0].read_text().splitlines()]
    assert [row["_status"] for row in rows] == ["ok"] * 8
    for row in rows:
        assert list(row["order"]) == ["name", "city", "quantity", "product"]
        assert isinstance(row["order"]["quantity"], int)


def test_summarise_adds_a_column(run_example):
    table = pyarrow.csv.read_csv(run_example("summarise")[0])
    assert table.column("_status").to_pylist() == ["ok"] * 6
    assert all(table.column("summary").to_pylist())


def test_batch_answers_each_request_with_a_line(millstream, tmp_path):
    millstream("run", ROOT / "examples/batch.yaml", "--output", tmp_path / "answers.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == ["sea", "sky", "list", "story", "drawing"]
    assert [line["response"]["status_code"] for line in lines] == [200, 200, 200, 200, 400]


def test_the_demo_job_answers_every_row(run_example):
    table = pyarrow.parquet.read_table(run_example("demo")[0])
    assert table.column("_status").to_pylist() == ["ok"] * 48
    assert set(table.column("kind").to_pylist()) <= {"person", "animal", "plant", "place", "thing"}
