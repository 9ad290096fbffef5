# SPDX-License-Identifier: Apache-2.0
"""Jobs on a real Ray cluster, on this machine: whatever happens to its nodes, the output is that of one process."""

import subprocess
import time

from conftest import ROOT, read_rows
from openai_stub import Server, answer_of
from ray_machines import Machines
from test_workers import STEPS, digest, served, write_job

GLOSSES = ROOT / "tests/data/glosses.jsonl"
EVERYWHERE = "resources: {max_workers: 3}\n"  # though one worker would do for a server
BINARY = ROOT / "build/release/bin/millstream"


def start(job, machines, *arguments):
    command = [BINARY, "run", job, "--ray", machines.address, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process, seconds=60):
    """Waits until something holds while a process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "nothing came of it"


def answered(server):
    with server.lock:
        return sum(server.answered.values())


def finish(process, exit_code=0):
    said = process.communicate(timeout=120)[1]
    assert process.returncode == exit_code, said
    return said


def test_a_job_on_a_cluster_has_the_output_of_one_process(millstream, tmp_path):
    with Machines(2) as machines:
        job = write_job(tmp_path)
        millstream("run", job, "--output", tmp_path / "one")
        said = finish(start(job, machines))
        assert "done: 400 ok" in said
        assert digest(millstream, tmp_path / "out") == digest(millstream, tmp_path / "one")
        assert "nothing to do" in finish(start(job, machines))
        machines.wait_until_idle()


def test_whatever_happens_to_its_machines_no_row_is_lost_or_answered_twice(tmp_path):
    rows = 3000
    with Machines(2) as machines, Server() as server:
        job = write_job(tmp_path, served(server, ", max_in_flight: 4"), STEPS, rows=rows, more=EVERYWHERE)
        process = start(job, machines)

        def at(count):
            wait_for(lambda: answered(server) >= count, process)

        at(200)
        machines.kill(machines.nodes[0])
        at(400)
        added = machines.add()
        at(600)
        machines.kill_coordinator()
        at(1000)
        process.kill()
        process.communicate()
        process = start(job, machines)
        at(1400)
        machines.stop(machines.nodes[0])
        machines.add()
        at(1800)
        machines.drain(added, 30)
        finish(process)
        total = answered(server)
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == [answer_of(f"Say row {i}") for i in range(rows)]
    assert total <= rows + 6 * 12


def test_the_real_model_gives_the_same_answers_whatever_happens(millstream, tmp_path):
    model = "models: {big: {path: smollm2-135m-instruct}}\n"
    steps = "steps: [{generate: {model: big, prompt: '{{ text }}', as: answer, max_tokens: 16}}]\n"
    (tmp_path / "job.yaml").write_text(
        f"{model}{steps}input: {GLOSSES}\noutput: {{path: out, rows: [ok, error, skipped]}}\nsplit_rows: 32\n"
    )
    job = tmp_path / "job.yaml"
    millstream("run", job, "--output", tmp_path / "one")
    with Machines(2) as machines:
        process = start(job, machines)

        def at(parts):
            wait_for(lambda: len(list((tmp_path / "out").glob("part-*"))) >= parts, process)

        at(1)
        machines.kill(machines.nodes[0])
        machines.add()
        at(2)
        machines.stop(machines.nodes[0])
        machines.add()
        at(3)
        machines.kill_coordinator()
        at(4)
        process.kill()
        process.communicate()
        process = start(job, machines)
        at(5)
        machines.drain(machines.nodes[1], 30)
        said = finish(process)
        print(said)
    assert digest(millstream, tmp_path / "out") == digest(millstream, tmp_path / "one")
