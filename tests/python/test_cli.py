# SPDX-License-Identifier: Apache-2.0
"""The command line as people and programs use it."""

import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import termios

import pytest
import yaml
from conftest import ROOT, read_rows
from json_schema import satisfies

JOB = """\
vars: {word: one}
input: {path: rows.jsonl}
steps:
  - set: {text: "${word} {{ id }}"}
    id: say
  - filter: "{{ id % 5 != 0 }}"
  - check: {that: "{{ id != 7 }}", code: seven}
output: {path: out, format: jsonl, rows: [ok, error, skipped]}
"""


@pytest.fixture
def job(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": number}) + "\n" for number in range(1, 101)))
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path / "job.yaml"


def table(text):
    """The rows of a printed table."""
    return [re.split(r"  +", line) for line in text.splitlines()]


@pytest.mark.parametrize("arguments", [(), ("-q",)])
def test_without_a_command_the_help_is_shown(millstream, arguments):
    said = millstream(*arguments, exit_code=1).stderr
    for command in ("run", "verify", "models", "schema", "init"):
        assert re.search(rf"^  {command} ", said, re.MULTILINE)


def test_help_has_examples(millstream):
    assert "millstream init job.yaml" in millstream("--help").stdout
    assert "millstream run job.yaml --dry-run" in millstream("run", "--help").stdout
    assert re.fullmatch(r"millstream \d+\.\d+\.\d+\n", millstream("--version").stdout)


@pytest.mark.parametrize(
    "line, message",
    [
        ("runn job.yaml", "no command 'runn': did you mean 'run'?"),
        ("nothing-like-it", "no command 'nothing-like-it': there are 'run', 'batch', 'status', 'verify', 'errors'"),
        ("--limit 3", "--limit goes after the command"),
        ("run", "millstream run: job is required; see `millstream run --help`"),
        ("run job.yaml --nothing", "not expected: --nothing"),
        ("run job.yaml --limit 0", "--limit: must be a whole number, at least 1, not 0"),
        ("run job.yaml --limit many", "--limit: must be a whole number, at least 1, not many"),
        ("run job.yaml --sample", "--sample requires --limit"),
        ("run job.yaml --progress xml", "xml not in {auto,json,none}"),
        ("run job.yaml --row a.jsonl:1 --limit 2", "excludes"),
        ("run job.yaml --set limit", "'limit' is not NAME=VALUE"),
        ("run job.yaml --output ''", "--output: is empty"),
        ("run none.yaml", "none.yaml: there is no such file"),
        ("verify nowhere", "nowhere is no output of Millstream"),
    ],
)
def test_a_wrong_command_line_says_what_to_change(millstream, line, message):
    assert message in millstream(*shlex.split(line), exit_code=1).stderr


def test_set_var_and_output_change_the_job(millstream, job):
    output = job.parent / "other.jsonl"
    millstream(
        "run", job, "--var", "word=two", "--set", "steps.check1.code=sept", "--set", "output.rows=[ok, error]",
        "--output", output,
    )  # fmt: skip
    rows = read_rows(output)
    assert len(rows) == 80 and rows[0]["text"] == "two 1"
    assert [row["_error"]["code"] for row in rows if row["_error"]] == ["sept"]
    assert not (job.parent / "out").exists()


@pytest.mark.parametrize(
    "pair, message",
    [
        ("steps.sya.text=1", "did you mean `say`?"),
        ("split_row=1", "did you mean `split_rows`?"),
        ("output.format=xml", "must be one of parquet, jsonl, csv, arrow"),
        ("split_rows=0", "--set: split_rows: must be at least 1"),
    ],
)
def test_a_wrong_set_says_what_to_change(millstream, job, pair, message):
    assert message in millstream("run", job, "--set", pair, exit_code=1).stderr


def test_limit_takes_the_first_rows_and_sample_spreads_them(millstream, job):
    header, *rows = table(millstream("run", job, "--limit", "3").stdout)
    assert header == ["id", "text", "_status", "_error"]
    assert [row[:3] for row in rows] == [["1", "one 1", "ok"], ["2", "one 2", "ok"], ["3", "one 3", "ok"]]
    _, *rows = table(millstream("run", job, "--limit", "10", "--sample").stdout)
    ids = [int(row[0]) for row in rows]
    assert len(ids) == 10 and ids == sorted(set(ids)) and ids[-1] > 90
    assert sorted(path.name for path in job.parent.iterdir()) == ["job.yaml", "rows.jsonl"]
    millstream("run", job, "--limit", "4", "--output", job.parent / "few")
    assert [row["id"] for row in read_rows(job.parent / "few")] == [1, 2, 3, 4]


@pytest.mark.parametrize("record, status", [(1, "ok"), (5, "skipped"), (7, "error")])
def test_row_explains_one_row(millstream, job, record, status):
    said = millstream("run", job, "--row", f"rows.jsonl:{record}").stdout
    assert f"id: {record}\n" in said and f"_status: {status}\n" in said and "prompt" not in said
    assert ('"code":"seven"' in said) == (status == "error")


@pytest.mark.parametrize(
    "place, message",
    [
        ("rows.jsonl", "--row takes FILE:RECORD"),
        ("rows.jsonl:x", "--row takes FILE:RECORD"),
        ("rows.jsonl:101", "rows.jsonl has records 1 to 100, not 101"),
        ("rows.jsonl:0", "rows.jsonl has records 1 to 100, not 0"),
        ("row.jsonl:1", "no input file is named 'row.jsonl': did you mean 'rows.jsonl'?"),
    ],
)
def test_a_wrong_row_says_what_to_change(millstream, job, place, message):
    assert message in millstream("run", job, "--row", place, exit_code=1).stderr


def test_dry_run_writes_nothing(millstream, job):
    plan = millstream("run", job, "--dry-run").stdout
    assert "100 rows in 1 files" in plan and "  text: string\n" in plan and "nothing was written" in plan
    assert "errors to expect: 1 x seven" in plan and "skipped: 20 rows of the sample" in plan
    assert sorted(path.name for path in job.parent.iterdir()) == ["job.yaml", "rows.jsonl"]


def test_progress_json_gives_one_event_a_line(millstream, job):
    done = millstream("run", job, "--progress", "json")
    assert done.stdout == ""
    *progress, end = map(json.loads, done.stderr.splitlines())
    assert {event["event"] for event in progress} == {"progress"} and end["event"] == "end"
    for event in (progress[-1], end):
        assert (event["ok"], event["error"], event["skipped"]) == (79, 1, 20)
    assert progress[-1]["rows_total"] == 100 and end["exit_code"] == 0 and end["output"] == str(job.parent / "out")
    assert list(end["errors"]) == ["seven"] and end["errors"]["seven"]["count"] == 1


def test_quiet_prints_the_summary_alone(millstream, job):
    first, *rest = millstream("run", job, "-q").stderr.splitlines()
    assert first.startswith("done: 79 ok, 1 error, 20 skipped; 100 rows in ")
    assert rest == ["  1 x seven: rows.jsonl:7: the row does not pass {{ id != 7 }}", f"output: {job.parent}/out"]


@pytest.mark.parametrize("column, key", [("text", "text"), ('Customer\'s "name"', 'Customer\'s "name"')])
def test_init_writes_a_job_that_runs(millstream, tmp_path, column, key):
    (tmp_path / "in put.jsonl").write_text(json.dumps({key: "A good film."}) + "\n" + json.dumps({key: ""}) + "\n")
    job = tmp_path / "labels.yaml"
    millstream("init", job, "--input", "in put.jsonl", "--column", column)
    assert "A good film." in millstream("run", job, "--dry-run").stdout
    assert "labels.yaml exists" in millstream("init", job, exit_code=1).stderr
    millstream("run", job)
    assert read_rows(tmp_path / "out/labels")[0]["sentiment"] in ("positive", "negative")


def test_init_needs_a_folder_that_is_there(millstream, tmp_path):
    assert "cannot write" in millstream("init", tmp_path / "no/job.yaml", exit_code=1).stderr


def test_schema_accepts_the_examples_and_refuses_mistakes(millstream, tmp_path):
    schema = json.loads(millstream("schema").stdout)
    millstream("init", tmp_path / "job.yaml")
    for path in [*ROOT.glob("examples/*.yaml"), tmp_path / "job.yaml"]:
        job = yaml.safe_load(path.read_text())
        assert satisfies(job, schema), path
        assert not satisfies(job | {"stepz": []}, schema)
        assert not satisfies(job | {"split_rows": 0}, schema)
        assert not satisfies(job | {"steps": [{"filter": "{{ a }}", "drop": ["a"]}]}, schema)
        assert not satisfies({"steps": job["steps"], "output": "out"}, schema)


def test_models_lists_what_there_is(millstream):
    said = millstream("models").stdout
    found = re.search(r"^smollm2-135m-instruct +([\d.]+) MB  llama, context 8,192\n +(/.*\.gguf)$", said, re.MULTILINE)
    assert found and float(found[1]) > 50


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_bar_stays_on_one_line_of_the_terminal(job, width):
    terminal, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen([ROOT / "build/release/bin/millstream", "run", job], stderr=ours, stdout=ours)
    os.close(ours)
    said = b""
    while True:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # the program closed its end
            break
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    bars = [line for line in re.split("\r\x1b\\[K", said.decode()) if "rows/s" in line and "done:" not in line]
    assert bars and "79 ok 1 error" in bars[-1] and all(len(line) < width for line in bars)
    assert all(line.startswith("[####") == (width == 200) for line in bars)
