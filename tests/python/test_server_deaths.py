# SPDX-License-Identifier: Apache-2.0
"""Servers that die in mid-job, of a row or otherwise: `engine: openai` against programs that really do."""

import collections
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, read_rows
from openai_stub import answer_of

MODEL = "models:\n  big: {engine: openai, base_url: %s, model: m/1%s}\n"
ASK = "steps: [{generate: {model: big, prompt: 'Say {{ text }}', as: answer}}]\n"


@contextlib.contextmanager
def supervised(folder):
    """A server that is started again, at its port, whenever it died."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "tests/python/mortal_server.py", str(port), folder]
    stop = threading.Event()
    process = []

    def supervise():
        while not stop.is_set():
            process[:] = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
            process[0].wait()

    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop.set()
        process[0].kill()
        thread.join()


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def check(found, texts, killers, folder):
    assert [row["answer"] for row in found] == [None if t in killers else answer_of(f"Say {t}") for t in texts]
    for row in found:
        if row["text"] in killers:
            assert row["_error"]["code"] == "crash", row
    answered = collections.Counter(lines(folder / "answered"))
    answered.pop("Hi", None)  # what a server is asked when it is back
    assert set(answered) == {f"Say {t}" for t in texts if t not in killers}
    deaths = len(lines(folder / "lives")) - 1
    assert answered.total() - len(answered) <= 32 * deaths  # their answers died with it


def test_a_row_that_kills_a_remote_server_fails_alone(run_rows, tmp_path):
    texts = [f"row {i}" for i in range(150)]
    texts[40] = "segfault"
    with supervised(tmp_path) as url:
        found = run_rows([{"text": t} for t in texts], MODEL % (url, "") + ASK)
    check(found, texts, {"segfault"}, tmp_path)
    assert "its port refused" in found[40]["_error"]["message"]


def test_a_remote_server_that_dies_once_of_many_rows_fails_none(run_rows, tmp_path):
    texts = [f"row {i}" for i in range(150)]
    texts[40], texts[110] = "segfault once", "exit once"
    with supervised(tmp_path) as url:  # one after the other
        found = run_rows([{"text": t} for t in texts], MODEL % (url, ", max_in_flight: 8") + ASK)
    check(found, texts, set(), tmp_path)
    assert len(lines(tmp_path / "lives")) == 3


def launched(folder, settings="", program="mortal_server.py"):
    command = f"{sys.executable} {ROOT}/tests/python/{program} {{port}} {folder}"
    return f"models:\n  big: {{engine: openai, launch: '{command}', dialect: openai{settings}}}\n" + ASK


def rows_of(texts):
    return [{"text": text} for text in texts]


def is_running(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_gone(folder):
    return not any(is_running(pid) for pid in lines(folder / "lives"))


@pytest.mark.parametrize("how", ["segfault", "abort", "exit"])
def test_a_row_that_kills_a_launched_server_fails_alone(run_rows, tmp_path, how):
    texts = [f"row {i}" for i in range(150)]
    texts[40] = how
    found = run_rows(rows_of(texts), launched(tmp_path))
    check(found, texts, {how}, tmp_path)
    words = {"segfault": "SIGSEGV", "abort": "SIGABRT", "exit": "exit code 0"}
    assert words[how] in found[40]["_error"]["message"]
    assert 3 <= len(lines(tmp_path / "lives")) <= 4
    assert all_gone(tmp_path)
    log = (tmp_path / "out.millstream/logs/big.log").read_text()
    assert log.count("serving") == len(lines(tmp_path / "lives"))


def test_a_row_that_hangs_a_launched_server_each_time_fails_alone(run_rows, tmp_path):
    texts = [f"row {i}" for i in range(20)]
    texts[8] = "stop"
    found = run_rows(rows_of(texts), launched(tmp_path, ", timeout: 2"))
    assert [row["answer"] for row in found] == [None if t == "stop" else answer_of(f"Say {t}") for t in texts]
    assert found[8]["_error"]["code"] == "timeout"
    assert 3 <= len(lines(tmp_path / "lives")) <= 5
    assert all_gone(tmp_path)


def test_launched_servers_that_die_and_hang_once_cost_no_row(run_rows, tmp_path):
    texts = [f"row {i}" for i in range(150)]
    texts[20], texts[60], texts[110] = "segfault once", "stop once", "exit once"
    found = run_rows(rows_of(texts), launched(tmp_path, ", timeout: 3, max_in_flight: 8"))  # one after the other
    check(found, texts, set(), tmp_path)
    assert len(lines(tmp_path / "lives")) == 4
    assert all_gone(tmp_path)


def test_a_crash_stands_on_the_next_run_and_a_retry_tries_it_again(run_rows, millstream, tmp_path):
    texts = ["row 1", "segfault", "row 3"]
    run_rows(rows_of(texts), launched(tmp_path))
    lives = len(lines(tmp_path / "lives"))
    millstream("run", tmp_path / "job.yaml")
    assert len(lines(tmp_path / "lives")) == lives  # nothing to do, no server
    (tmp_path / "no segfault").touch()  # it is mended
    millstream("retry", tmp_path / "out")
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == [answer_of(f"Say {text}") for text in texts]


def test_nothing_is_left_of_a_server_when_its_job_is_killed(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "wait"}) + "\n")
    (tmp_path / "job.yaml").write_text(launched(tmp_path) + "input: {path: rows.jsonl}\noutput: {path: out}\n")
    os.mkfifo(tmp_path / "waits")
    command = [ROOT / "build/release/bin/millstream", "run", tmp_path / "job.yaml"]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (tmp_path / "waits").read_text()  # until the row is there
    (server,) = lines(tmp_path / "lives")
    fd = os.pidfd_open(int(server))
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert wait_for_end(fd), "the server outlives its job"


def wait_for_end(fd):
    """Whether the process of a pidfd ends."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(60_000))


MISTAKES = {
    "no-such-server {port}": "No such file or directory",
    "sh -c 'echo no such model >&2; exit 3' {port}": "exit code 3",
    "llama-server -m $MODEL --port {port}": "models.big.launch: has $",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_server_that_does_not_start_is_an_error_of_the_job(millstream, tmp_path, command):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
    (tmp_path / "job.yaml").write_text(
        f"models:\n  big: {{engine: openai, launch: {json.dumps(command)}, dialect: openai}}\n"
        + ASK
        + "input: {path: rows.jsonl}\noutput: {path: out}\n"
    )
    failed = millstream("run", tmp_path / "job.yaml", exit_code=1)
    assert MISTAKES[command] in failed.stderr
    if "echo" in command:
        assert "no such model" in failed.stderr  # its log's end


def test_a_preview_launches_the_server_too(millstream, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
    (tmp_path / "job.yaml").write_text(launched(tmp_path) + "input: {path: rows.jsonl}\noutput: {path: out}\n")
    shown = millstream("run", tmp_path / "job.yaml", "--limit", "1")
    assert "re: Say x" in shown.stdout
    assert "the server is ready" in shown.stderr
    assert all_gone(tmp_path)
    dry = millstream("run", tmp_path / "job.yaml", "--dry-run")
    assert "a server of its own" in dry.stdout
    assert len(lines(tmp_path / "lives")) == 1


def test_auto_takes_the_dialect_from_the_command(millstream, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
    for command, words in {
        "/opt/llama-server-cuda -m x": "dialect llama-server",
        "serve": "must have a `dialect`",
    }.items():
        (tmp_path / "job.yaml").write_text(
            f"models:\n  big: {{engine: openai, launch: '{command} {{port}}'}}\n"
            + ASK
            + "input: {path: rows.jsonl}\noutput: {path: out}\n"
        )
        shown = millstream("run", tmp_path / "job.yaml", "--dry-run", exit_code=None)
        assert words in shown.stdout + shown.stderr
