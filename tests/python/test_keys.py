# SPDX-License-Identifier: Apache-2.0
"""Keys are in no log, state, message, output or core dump, whatever servers make of them."""

import functools
import json
import os
import resource
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from openai_stub import Server, completion

KEY, TOKEN = "canary-key-01234/56789+", "canary-token-9876543210"
SECRETS = ", api_key: {env: CANARY_KEY}, headers: {X-Token: {env: CANARY_TOKEN}}"
WITH_SCHEME = ", headers: {Authorization: {env: CANARY_HEADER}, X-Token: {env: CANARY_TOKEN}}"
JOB = """
models:
  big: {engine: openai, base_url: %s, model: m, dialect: openai, row_deadline: 1%s}
input: {path: rows.jsonl}
steps: [{generate: {model: big, prompt: "{{ text }}", as: answer}}]
output: {path: out, rows: [ok, error]}
breaker: off
split_rows: 4
"""


def message(status, text):
    return status, {}, json.dumps({"error": {"message": text}}).encode()


def escaped(text):
    """As JSON may write a text, which few need to."""
    return "".join(f"\\u{ord(c):04x}" for c in text[:9]) + text[9:].replace("/", "\\/")


# Servers that repeat what they were sent. A message is cut at 500 bytes, here in the midst of the key.
FAULTS = {
    "refused": lambda body: message(400, f"with {KEY} and {TOKEN}"),
    "cut": lambda body: message(400, "x" * 490 + KEY),
    "escaped": lambda body: (400, {}, b'{"error":{"message":"with %s"}}' % escaped(KEY).encode()),
    "escaped and cut": lambda body: (
        400,
        {},
        b'{"error":{"message":"%s"}}' % ("x" * 489 + escaped(KEY)).encode(),
    ),
    "escaped in no JSON": lambda body: (400, {}, b'data: {"error":"%s"}' % escaped(KEY).encode()),
    "no JSON": lambda body: (400, {}, f"you said {KEY}".encode()),
    "fails": lambda body: message(500, f"{KEY} {TOKEN}"),
    "an error as 200": lambda body: message(200, "x" * 490 + TOKEN),
    "refuses": lambda body: (
        200,
        {},
        json.dumps(
            completion(body, None) | {"choices": [{"message": {"refusal": "x" * 490 + KEY}, "finish_reason": "stop"}]}
        ).encode(),
    ),
}


def run(folder, command):
    """A process that may dump core, and its standard error and output."""
    unlimited = functools.partial(resource.setrlimit, resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    environment = os.environ | {"CANARY_KEY": KEY, "CANARY_TOKEN": TOKEN, "CANARY_HEADER": f"Bearer {KEY}"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, preexec_fn=unlimited, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


def has_canary(data):
    return any(secret[:10].encode() in data for secret in (KEY, TOKEN))


def check_files(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "job.yaml"]
    assert [path for path in files if has_canary(path.read_bytes())] == []


def write_job(folder, texts, url, settings):
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "job.yaml").write_text(JOB % (url, settings))
    return [ROOT / "build/release/bin/millstream", "--verbose", "run", folder / "job.yaml"]


@pytest.mark.parametrize("settings", [SECRETS, WITH_SCHEME], ids=["key", "header"])
def test_no_key_is_in_what_a_job_writes_and_says(tmp_path, settings):
    texts = [f"row {i}" for i in range(20)] + list(FAULTS)

    def script(body):
        fault = FAULTS.get(body["messages"][0]["content"])
        return fault(body) if fault else None

    with Server(script=script, key=KEY) as server:
        process = run(tmp_path, write_job(tmp_path, texts, server.url, settings))
        said = b"".join(process.communicate())
        assert process.returncode == 0, said
        assert all(headers["x-token"] == TOKEN for headers in server.headers if "x-token" in headers)
    errors = subprocess.run(
        [ROOT / "build/release/bin/millstream", "errors", tmp_path / "out"], check=True, capture_output=True
    ).stdout
    assert b"***" in errors
    assert not has_canary(said + errors)
    check_files(tmp_path)


def test_no_key_is_in_a_batchs_output(tmp_path):
    body = b'{"error":{"message":"%(key)s","type":"%(key)s","code":"%(cut)s"}}'
    body %= {b"key": escaped(KEY).encode(), b"cut": ("x" * 489 + escaped(KEY)).encode()}
    line = {"method": "POST", "url": "/v1/chat/completions"}
    line |= {"custom_id": "1", "body": {"model": "m", "messages": [{"role": "user", "content": "x"}]}}
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    with Server(script=lambda _: (400, {}, body)) as server:
        command = [ROOT / "build/release/bin/millstream", "batch", "in.jsonl", "-o", "out.jsonl", "-m", "m"]
        process = run(tmp_path, command + ["--base-url", server.url, "--api-key-env", "CANARY_KEY"])
        said = b"".join(process.communicate())
    assert (tmp_path / "out.jsonl").read_text().count("***") == 3
    assert not has_canary(said)
    check_files(tmp_path)


def ends_by_abort(folder, settings):
    """Kills a job with a row in flight by SIGABRT; returns whether it dumped core."""
    folder.mkdir()
    os.mkfifo(folder / "there")

    def script(body):
        (folder / "there").write_text("now")
        signal.pause()

    with Server(script=script) as server:
        process = run(folder, write_job(folder, ["x"], server.url, settings))
        (folder / "there").read_text()
        process.send_signal(signal.SIGABRT)
        _, status = os.waitpid(process.pid, 0)
        said = process.stderr.read() + process.stdout.read()
    assert os.WTERMSIG(status) == signal.SIGABRT
    (folder / "there").unlink()
    assert not has_canary(said)
    return os.WCOREDUMP(status)


def test_a_job_with_keys_dumps_no_core(tmp_path):
    dumps_without = ends_by_abort(tmp_path / "without", "")
    assert not ends_by_abort(tmp_path / "with", SECRETS)
    check_files(tmp_path / "with")
    if not dumps_without:
        pytest.skip("processes dump no core on this machine, keys or not")


@pytest.mark.parametrize("settings", [SECRETS, WITH_SCHEME], ids=["key", "header"])
def test_a_launched_server_that_prints_its_keys_shows_none_in_its_log(tmp_path, settings):
    program = tmp_path / "server.py"
    program.write_text(
        f"import os, sys\nsys.path.insert(0, {str(ROOT / 'tests/python')!r})\nimport mortal_server\n"
        "print(dict(os.environ), flush=True)\n"
        "mortal_server.main()\n"
    )
    command = write_job(tmp_path, ["a", "b"], "", settings)
    job = (
        (tmp_path / "job.yaml")
        .read_text()
        .replace("base_url: ,", f"launch: '{sys.executable} {program} {{port}} {tmp_path}',")
    )
    (tmp_path / "job.yaml").write_text(job)
    process = run(tmp_path, command)
    said = b"".join(process.communicate())
    assert process.returncode == 0, said
    assert "'CANARY_KEY': '***'" in (tmp_path / "out.millstream/logs/big.log").read_text()
    assert not has_canary(said)
    check_files(tmp_path)
