# SPDX-License-Identifier: Apache-2.0
"""Jobs whose input lies on S3: on our stub, with and without faults, and what they say of mistakes."""

import gzip
import io
import json
import subprocess

import pyarrow
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest
from conftest import ROOT, read_rows
from s3_stub import Object, Server
from test_s3 import environment

ROWS = pyarrow.table({"id": range(20_000), "text": [f"row {i} " + "x" * (i % 90) for i in range(20_000)]})


def jsonl(table):
    return b"".join(b'{"id": %d, "text": "%s"}\n' % (row["id"], row["text"].encode()) for row in table.to_pylist())


def csv(table):
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


def parquet(table):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, row_group_size=3000)
    return sink.getvalue()


def arrow(table, stream=False):
    sink = io.BytesIO()
    make = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3000)
    return sink.getvalue()


FORMATS = {
    "jsonl": jsonl,
    "jsonl.gz": lambda table: gzip.compress(jsonl(table)),
    "csv": csv,
    "parquet": parquet,
    "arrow": arrow,
    "arrows": lambda table: arrow(table, stream=True),
}


def run(server, folder, path, *arguments, settings=None):
    job = {"input": {"path": path}, "steps": [{"set": {"n": "{{ id + 1 }}"}}], "output": {"path": "out"}}
    (folder / "job.yaml").write_text(json.dumps(job))  # which is YAML too
    command = [ROOT / "build/release/bin/millstream", "run", folder / "job.yaml", *arguments]
    variables = environment(server.environment | (settings or {}))
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("faults", [0, 0.2])
@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_come_from_objects_as_from_files(tmp_path, suffix, faults):
    with Server(faults=faults, seed=5, late_s=1) as server:
        halves = ROWS.slice(0, 12_000), ROWS.slice(12_000)
        for number, half in enumerate(halves):
            server.buckets["bucket"][f"in/a b/{number}.{suffix}"] = Object(FORMATS[suffix](half), {})
        server.buckets["bucket"]["in/a b/_SUCCESS"] = Object(b"", {})
        server.buckets["bucket"]["in/other.txt"] = Object(b"other", {})
        done = run(server, tmp_path, "s3://bucket/in/a b")
        assert done.returncode == 0, done.stderr
        assert not server.refused_signatures
    rows = read_rows(tmp_path / "out")
    assert [{"id": row["id"], "text": row["text"]} for row in rows] == ROWS.to_pylist()
    assert {row["_source"]["file"] for row in rows} == {f"s3://bucket/in/a b/{n}.{suffix}" for n in (0, 1)}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("s3://bucket/d/1.jsonl", [1]),
        ("s3://bucket/d/", [1, 2, 3]),
        ("s3://bucket/d/*.jsonl", [1, 2]),
        ("s3://bucket/d/[2-9].jsonl", [2]),
        ("s3://bucket/**/3.jsonl", [3]),
        ("s3://bucket/*/e/**", [3]),
        (["s3://bucket/d/2.jsonl", "s3://bucket/d/*.jsonl"], [1, 2]),
    ],
)
def test_paths_name_objects_as_they_name_files(tmp_path, path, found):
    with Server() as server:
        for name in ("d/1", "d/2", "d/e/3", "d/_hidden/4", "d/.x/5"):
            number = name[-1].encode()
            server.buckets["bucket"][name + ".jsonl"] = Object(b'{"id": %s}\n' % number, {})
        done = run(server, tmp_path, path)
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in read_rows(tmp_path / "out")] == found


MISTAKES = {
    "no object": ({}, "s3://bucket/none.jsonl", "does not exist: no object has this name or lies below"),
    "no match": ({}, "s3://bucket/*.csv", "input pattern s3://bucket/*.csv matches no object"),
    "no bucket": ({}, "s3://other/x.jsonl", "there is no bucket other: create it, or correct the path"),
    "no path": ({}, "s3://", "an S3 path is s3://bucket/folder"),
    "another store": ({}, "gs://bucket/x.jsonl", "only files of the local disk and s3:// paths can be read"),
    "no keys": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "s3://bucket/", "set AWS_ACCESS_KEY_ID and"),
    "wrong key": ({"AWS_ACCESS_KEY_ID": "x"}, "s3://bucket/", "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "no region": ({"AWS_ENDPOINT_URL": "", "AWS_REGION": ""}, "s3://bucket/", "set AWS_REGION"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_with_what_to_do(tmp_path, mistake):
    settings, path, message = MISTAKES[mistake]
    with Server() as server:
        server.buckets["bucket"]["x.jsonl"] = Object(b"{}\n", {})
        done = run(server, tmp_path, path, settings=settings)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_object_that_changes_while_it_is_read_stops_the_job(tmp_path, suffix):
    """Whichever request comes after the change, never are two versions mixed."""
    body = FORMATS[suffix](ROWS)
    changed = Object(body + b"\n" if suffix == "jsonl" else body[:-1] + bytes([body[-1] ^ 1]), {})
    with Server() as server:
        bucket = server.buckets["bucket"]
        bucket[f"x.{suffix}"] = Object(body, {})
        assert run(server, tmp_path, f"s3://bucket/x.{suffix}", "--limit", "5").returncode == 0
        needed = server.num_requests
        assert needed > 3
        for at in range(2, needed + 1):
            bucket[f"x.{suffix}"] = Object(body, {})
            server.call_at(at, lambda: bucket.update({f"x.{suffix}": changed}))
            done = run(server, tmp_path, f"s3://bucket/x.{suffix}", "--limit", "5")
            assert done.returncode == 4, (at, done.stderr)
            assert "was changed" in done.stderr
