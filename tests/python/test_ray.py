# SPDX-License-Identifier: Apache-2.0
"""Jobs on a real Ray cluster, on this machine: whatever happens to its nodes, the output is that of one process."""

import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, read_rows
from openai_stub import Server, answer_of
from ray_machines import Machines, command_of, descendants
from row_logs import AnswersOfWorkers
from test_workers import STEPS, digest, served, write_job

sys.path.insert(0, str(ROOT / "python"))
import millstream.ray_cluster as cluster  # noqa: E402

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


class Slow:
    """A script for a server: each answer takes a while, until it is told otherwise. So a job lasts as long as what is
    done to it, on any machine."""

    def __init__(self):
        self.hurries = threading.Event()

    def __call__(self, body):
        self.hurries.wait(0.05)


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
    rows = 20_000
    slow = Slow()
    with Machines(2) as machines, Server(script=slow) as server:
        job = write_job(tmp_path, served(server, ", max_in_flight: 4"), STEPS, rows=rows, more=EVERYWHERE)
        process = start(job, machines)

        def at(count):
            wait_for(lambda: answered(server) >= count, process)

        at(100)
        machines.kill(machines.nodes[0])
        at(200)
        added = machines.add()
        wait_for(lambda: machines.workers(added), process)  # it is used
        at(300)
        machines.kill_coordinator()
        at(500)
        process.kill()
        process.communicate()
        process = start(job, machines)
        at(800)
        machines.stop(machines.nodes[0])
        machines.add()
        at(1000)
        wait_for(lambda: machines.workers(added), process)
        machines.drain(added, 30)
        wait_for(lambda: not machines.workers(added), process, 20)
        assert answered(server) < rows  # it has left, and not because nothing was left to do
        slow.hurries.set()
        finish(process)
        total = answered(server)
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == [answer_of(f"Say row {i}") for i in range(rows)]
    assert total <= rows + 6 * 12


def test_the_real_model_gives_the_same_answers_whatever_happens(millstream, tmp_path):
    model = "models: {big: {path: smollm2-135m-instruct}}\n"
    steps = "steps: [{generate: {model: big, prompt: '{{ text }}', as: answer, max_tokens: 16}}]\n"
    (tmp_path / "job.yaml").write_text(
        f"{model}{steps}input: {GLOSSES}\noutput: {{path: out, rows: [ok, error, skipped]}}\nsplit_rows: 16\n"
    )
    job = tmp_path / "job.yaml"
    millstream("run", job, "--output", tmp_path / "one")
    answers = AnswersOfWorkers(tmp_path / "out.millstream")
    with Machines(2) as machines:
        process = start(job, machines)

        def at(parts):
            def are_there():
                answers.look()
                return len(list((tmp_path / "out").glob("part-*"))) >= parts

            wait_for(are_there, process)

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
        while process.poll() is None:
            answers.look()
        finish(process)
    answers.check()
    assert len(answers.before) > 1
    assert digest(millstream, tmp_path / "out") == digest(millstream, tmp_path / "one")


@pytest.fixture
def token_cluster(monkeypatch):
    """A cluster of one machine that wants a token, which this process has."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--num-cpus=1", "--node-ip-address=127.0.0.1", f"--port={port}"]
    head = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    yield f"127.0.0.1:{port}"
    processes = [head.pid, *descendants(head.pid)]
    head.terminate()
    head.wait()
    for pid in processes:
        if command_of(pid):
            os.kill(pid, 9)


def test_a_cluster_that_wants_a_token_gets_it_and_is_trusted(millstream, tmp_path, token_cluster, monkeypatch):
    job = write_job(tmp_path)
    wait_until_it_answers(token_cluster)
    monkeypatch.setattr(cluster, "_is_own", lambda address: False)
    assert not cluster.check_trust(token_cluster, allow_unauthenticated=False)
    millstream("run", job, "--ray", token_cluster)
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    said = millstream("run", job, "--ray", token_cluster, exit_code=1).stderr
    assert "token" in said and os.environ["RAY_AUTH_TOKEN"] not in said


def wait_until_it_answers(address, seconds=30):
    end = time.monotonic() + seconds
    while not cluster._ask_for_nodes(address, **os.environ):
        assert time.monotonic() < end, "no cluster came up"


def test_a_cluster_of_other_machines_that_asks_for_no_token_is_refused(monkeypatch):
    with Machines(0) as machines:
        assert cluster.check_trust(machines.address, allow_unauthenticated=False)  # it is this machine alone
        monkeypatch.setattr(cluster, "_is_own", lambda address: False)
        with pytest.raises(cluster.Refusal, match="--allow-unauthenticated-ray"):
            cluster.check_trust(machines.address, allow_unauthenticated=False)
        assert not cluster.check_trust(machines.address, allow_unauthenticated=True)


def test_the_wheel_reaches_the_machines(tmp_path, wheel):
    venv = tmp_path / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin/pip", "install", "--quiet", "--no-index", wheel], check=True)
    # Beside Ray, which stands elsewhere here.
    (venv / "lib/python3.11/site-packages/ray.pth").write_text(str(ROOT / ".deps/venv/lib/python3.11/site-packages"))
    job = write_job(tmp_path)
    with Machines(1) as machines:
        command = [venv / "bin/millstream", "run", job, "--ray", machines.address]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
        unpacked = list(pathlib.Path("/tmp/ray/session_latest").glob("runtime_resources*/**/millstream/bin/millstream"))
    assert ran.returncode == 0, ran.stderr
    assert unpacked and len(read_rows(tmp_path / "out")) == 400


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ray", "127.0.0.1:9"], "no Ray cluster answers at"),
        (["--ray", "ray://127.0.0.1:10001"], "on a machine of the cluster"),
        (["--ray"], "start one (`ray start --head`)"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_plainly(millstream, tmp_path, arguments, words, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert words in millstream("run", write_job(tmp_path), *arguments, exit_code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ray", "--workers", "2"], "excludes --ray"),
        (["--on-interrupt", "detach"], "--on-interrupt requires --ray"),
        (["--allow-unauthenticated-ray"], "--allow-unauthenticated-ray requires --ray"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(millstream, tmp_path, arguments, words):
    assert words in millstream("run", write_job(tmp_path), *arguments, exit_code=1).stderr
    assert not (tmp_path / "out").exists()


def test_a_stop_keeps_all_answers_and_a_detached_job_goes_on(millstream, tmp_path):
    slow = Slow()
    with Machines(1) as machines, Server(script=slow) as server:
        job = write_job(tmp_path, served(server, ", max_in_flight: 4"), STEPS, rows=1500)
        process = start(job, machines)
        wait_for(lambda: answered(server) >= 100, process)
        process.send_signal(signal.SIGINT)
        finish(process, 75)
        stopped = answered(server)
        machines.wait_until_idle()
        assert answered(server) == stopped < 1500
        process = start(job, machines, "--on-interrupt", "detach")
        wait_for(lambda: answered(server) >= stopped + 100, process)
        process.send_signal(signal.SIGINT)
        assert "the job goes on" in finish(process, 75)
        assert "running" in millstream("status", tmp_path / "out").stdout
        slow.hurries.set()
        end = time.monotonic() + 60
        while "complete" not in millstream("status", tmp_path / "out").stdout:
            assert time.monotonic() < end, "the detached job does not end"
        assert answered(server) <= 1500 + 8
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == [answer_of(f"Say row {i}") for i in range(1500)]
