# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the clone, and a way to run the release binary."""

import json
import os
import pathlib
import subprocess

import pyarrow.ipc
import pyarrow.parquet
import pytest
from batch_lines import MODEL, check_line, write

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # datasets reads local folders only


@pytest.fixture(scope="session")
def millstream():
    """Runs `millstream ARGUMENTS` and returns the finished process; checks the exit code unless it is None."""

    def run(*arguments, exit_code=0):
        command = [ROOT / "build/release/bin/millstream", *map(str, arguments)]
        process = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert exit_code in (None, process.returncode), process.stderr
        return process

    return run


def read_rows(path):
    """The rows of an output, a folder or one file, by other readers than ours."""
    if path.is_dir():
        return [row for part in sorted(path.iterdir()) for row in read_rows(part)]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    return pyarrow.ipc.open_file(path).read_all().to_pylist()


@pytest.fixture
def run_rows(millstream, tmp_path):
    """Runs a job's models and steps over rows, and returns what comes out; fails if a row is lost."""

    def run(rows, steps, *arguments, **options):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "job.yaml").write_text(
            steps + "input: {path: rows.jsonl}\noutput: {path: out, rows: [ok, error, skipped]}\n"
        )
        millstream("run", tmp_path / "job.yaml", *arguments, **options)
        found = read_rows(tmp_path / "out")
        assert [row["_source"]["record"] for row in found] == list(range(1, len(rows) + 1))
        return found

    return run


@pytest.fixture
def batch(millstream, tmp_path):
    """Runs a batch over lines in tmp_path, and returns the lines that come out."""

    def run(lines, *arguments, model=MODEL, output="out.jsonl", **options):
        write(tmp_path / "in.jsonl", lines)
        run.process = millstream(
            "batch", tmp_path / "in.jsonl", "-o", tmp_path / output, "--model", model, *arguments, **options
        )
        run.said = run.process.stderr
        found = read_rows(tmp_path / output)
        for line in found:
            check_line(line)
        return found

    return run


def make_wheel():
    process = subprocess.run([ROOT / "scripts/wheel", "--built"], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return next((ROOT / "build/wheel").glob("*.whl"))


@pytest.fixture(scope="session")
def wheel():
    return make_wheel()
