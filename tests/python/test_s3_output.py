# SPDX-License-Identifier: Apache-2.0
"""Jobs whose output lies on S3: our stub, with faults and kills at every request, and another project's server."""

import json
import signal
import subprocess

import pytest
from s3_stub import Object, Server
from test_s3 import environment, moto, other_server, versitygw  # noqa: F401
from torture import DRIVER, MILLSTREAM, SECONDS, SEED, Clock, KilledJob, choices, kill_after, report

OUTPUT = "s3://bucket/some folder/out"
STEPS = [{"check": {"that": "{{ id % 7 != 3 }}"}}, {"set": {"double": "{{ id * 2 }}"}}]

LAGGING = ["stale_list"]  # stores whose listings lag are not promised
MEND = 'steps.check1.that="{{ id % 7 != 3 or id < 1500 }}"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    subprocess.run([DRIVER, "model", folder / "tiny.gguf"], check=True)
    rows = ({"id": i, "text": "x" * (i % 50)} for i in range(3000))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_job(folder, name, output, **more):
    job = {"input": {"path": "rows.jsonl"}, "steps": STEPS, "split_rows": 700, "output": output} | more
    (folder / name).write_text(json.dumps(job))  # which is YAML too
    return folder / name


def call(server_environment, *arguments, exit_code=0):
    command = list(map(str, [MILLSTREAM, *arguments]))
    done = subprocess.run(command, env=environment(server_environment), capture_output=True, text=True, timeout=300)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done


def digest(server_environment, output):
    return call(server_environment, "verify", output, "--deep", "--digest").stdout.splitlines()


def parts_of(bucket, output=OUTPUT):
    prefix = output.removeprefix("s3://bucket/") + "/"
    return {key.removeprefix(prefix): found.body for key, found in bucket.items() if key.startswith(prefix)}


PLACES = [("out", 0), ("out", 0.2), ("out.parquet", 0.2), ("out.jsonl", 0), ("out.csv", 0), ("out.arrow", 0)]


@pytest.mark.parametrize(("output", "faults"), PLACES)
def test_rows_on_a_store_are_those_on_the_disk(folder, tmp_path, output, faults):
    with Server(faults=faults, seed=11, late_s=1, without=LAGGING) as server:
        remote, local = f"s3://bucket/a b/{output}", tmp_path / output
        call(server.environment, "run", write_job(folder, "remote.yaml", remote))
        call({}, "run", write_job(folder, "local.yaml", str(local)))
        assert digest(server.environment, remote) == digest({}, local)
        again = call(server.environment, "run", folder / "remote.yaml")
        assert "nothing to do: 3000 of 3000 rows done" in again.stderr
        assert call(server.environment, "errors", remote).stdout == call({}, "errors", local).stdout
        status = json.loads(call(server.environment, "status", remote, "--json").stdout)
        assert (status["state"], status["ok"], status["error"]) == ("complete", 2571, 429)
        assert not server.refused_signatures
        left = {key for key in server.buckets["bucket"] if "/tmp/" in key or "probe" in key}
        assert not left or faults, left


class S3Job(KilledJob):
    """A job of suite 3 whose output lies on a server; nothing of it is on this machine."""

    def __init__(self, folder, server):
        super().__init__(folder, output="s3://bucket/killed/out")
        self.environment = environment(server.environment)
        self.bucket = server.buckets["bucket"]

    def part_files(self):
        return parts_of(self.bucket, self.output)

    def row_logs(self):
        return [found.body for key, found in list(self.bucket.items()) if "/rows/" in key]

    def manifest(self):
        return json.loads(self.bucket["killed/out.millstream/success.json"].body)


def test_a_kill_at_any_request_to_the_store_costs_no_row(folder):
    with Server() as server:
        job = S3Job(folder / "undisturbed", server)
        job.run_to_end()
        needed = server.num_requests
        server.buckets["bucket"].clear()
        kills = 0
        for at in range(1, needed + 1):
            job = S3Job(folder / f"request-{at}", server)
            for request in (at, choices("request", at).randrange(1, needed))[: 1 if at % 4 else 2]:
                process = job.start()
                server.call_at(request, process.kill)
                _, err = process.communicate(timeout=120)
                assert process.returncode in (0, -9), err
                kills += process.returncode != 0
                server.call_before.clear()
                job.look()
            job.run_to_end()
            server.buckets["bucket"].clear()
    report("kill at every request", kills=kills, jobs=needed, wrong=0)
    assert needed > 50


def test_kills_at_random_times_and_faults_cost_no_row(folder):
    clock = Clock(6)
    kills = jobs = 0
    with Server(faults=0.1, seed=5, late_s=1, without=LAGGING) as server:
        while clock.goes_on(jobs):
            random = choices("s3", jobs)
            job = S3Job(folder / f"random-{jobs}", server)
            while kill_after(job.start(), random.uniform(0.05, 3)):
                kills += 1
                job.look()
            job.run_to_end()
            server.buckets["bucket"].clear()
            jobs += 1
    report("kill, S3 with faults", kills=kills, jobs=jobs, wrong=0)


def test_a_second_driver_is_told_who_holds_the_output(folder):
    with Server() as server:
        path = write_job(folder, "held.yaml", OUTPUT)
        second = []

        def start_another():
            second.append(call(server.environment, "run", path, exit_code=75))

        call(server.environment, "run", path)
        needed = server.num_requests
        server.buckets["bucket"].clear()
        server.call_at(needed // 2, start_another)  # the first one's request waits for that
        first = subprocess.Popen(
            [MILLSTREAM, "run", path], env=environment(server.environment), stderr=subprocess.PIPE, text=True
        )
        _, err = first.communicate(timeout=120)
        assert first.returncode == 0, err
        assert f"is being written by another run (process {first.pid} on " in second[0].stderr
        assert digest(server.environment, OUTPUT)


def rows_by_status(parts):
    return sorted((row["id"], row["_status"]) for body in parts.values() for row in map(json.loads, body.splitlines()))


def test_a_retry_killed_at_any_request_shows_every_row_once(folder):
    mend = ["--set", MEND]
    with Server() as server:
        bucket = server.buckets["bucket"]
        output = {"path": OUTPUT, "format": "jsonl"}
        call(server.environment, "run", write_job(folder, "retry.yaml", output))
        before = dict(bucket)
        requests = server.num_requests
        call(server.environment, "retry", OUTPUT, *mend)
        needed = server.num_requests - requests
        mended = rows_by_status(parts_of(bucket))
        expected = sorted((i, "ok" if i % 7 != 3 or i < 1500 else "error") for i in range(3000))
        assert mended == expected
        assert any("/superseded/" in key for key in bucket)
        places = range(1, needed + 1) if SECONDS else range(1 + SEED % 4, needed + 1, 4)
        for at in places:
            bucket.clear()
            bucket.update(before)
            command = list(map(str, [MILLSTREAM, "retry", OUTPUT, *mend]))
            process = subprocess.Popen(command, env=environment(server.environment), stderr=subprocess.DEVNULL)
            server.call_at(at, process.kill)
            process.wait(timeout=120)
            server.call_before.clear()
            seen = rows_by_status(parts_of(bucket))
            assert [row for row, _ in seen] == list(range(3000)), at
            call(server.environment, "retry", OUTPUT, *mend)
            assert rows_by_status(parts_of(bucket)) == expected, at
            digest(server.environment, OUTPUT)
        call(server.environment, "retry", OUTPUT, "--prune")
        assert not any("/superseded/" in key for key in bucket)
    report("retry, kill at a request", kills=len(places), wrong=0)


def test_a_stop_saves_what_is_half_generated(folder):
    steps = [{"generate": {"model": "tiny", "raw_prompt": "{{ text }}", "as": "answer", "max_tokens": 100}}]
    more = {"models": {"tiny": {"path": "tiny.gguf"}}, "steps": steps}
    (folder / "rows-few.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(2000)))
    more["input"] = {"path": "rows-few.jsonl"}
    with Server() as server:
        path = write_job(folder, "stop.yaml", OUTPUT, **more)
        command = list(map(str, [MILLSTREAM, "run", path, "--progress", "json"]))
        process = subprocess.Popen(command, env=environment(server.environment), stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if '"completion_tokens"' in line and json.loads(line)["completion_tokens"] > 0:
                process.send_signal(signal.SIGINT)
                break
        _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 75), err
        call(server.environment, "run", path)
        whole = write_job(folder, "whole.yaml", str(folder / "whole"), **more)
        call({}, "run", whole)
        assert digest(server.environment, OUTPUT) == digest({}, folder / "whole")


MISTAKES = {
    "a whole bucket": ("s3://bucket", [], "output s3://bucket is a whole bucket: name a folder in it"),
    "no bucket": ("s3://other/out", [], "there is no bucket other: create it, or correct the path"),
    "no restart": (OUTPUT, ["--restart"], "an object store has no renames: write elsewhere with --output"),
    "in its input": ("s3://bucket/in/out", ["--set", "input.path=s3://bucket/in"], "lies in the input folder"),
    "another store": ("gs://bucket/out", [], "only folders and files of the local disk and s3:// paths"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_with_what_to_do(folder, mistake):
    output, arguments, message = MISTAKES[mistake]
    with Server() as server:
        server.buckets["bucket"]["in/x.jsonl"] = Object(b'{"id": 1, "text": ""}\n', {})
        done = call(server.environment, "run", write_job(folder, "mistake.yaml", output), *arguments, exit_code=1)
        assert message in done.stderr


def test_a_store_without_conditions_is_refused(folder):
    with Server(honours_conditions=False) as server:
        done = call(server.environment, "run", write_job(folder, "refused.yaml", OUTPUT), exit_code=1)
    assert "this object store does not honour `If-None-Match: *`" in done.stderr


def test_a_job_runs_on_a_server_of_others(folder, other_server):  # noqa: F811
    path = write_job(folder, "others.yaml", OUTPUT)
    process = subprocess.Popen([MILLSTREAM, "run", path], env=environment(other_server), stderr=subprocess.DEVNULL)
    kill_after(process, 0.15)
    call(other_server, "run", path)
    call({}, "run", write_job(folder, "local.yaml", str(folder / "others")))
    assert digest(other_server, OUTPUT) == digest({}, folder / "others")
    call(other_server, "retry", OUTPUT, "--set", MEND)
    digest(other_server, OUTPUT)
