# SPDX-License-Identifier: Apache-2.0
"""`dialect: auto`: what a server says of itself decides in which words it is asked, once for the whole job."""

import json
import socket
import subprocess

import pytest
from conftest import ROOT, read_rows
from http2_stub import Http2Server
from openai_stub import DEEP, Handler, Server
from stub_server import own_certificate

JOB = """models: {big: {engine: openai, base_url: '%s', model: m/1%s}}
steps: [{generate: {model: big, prompt: '{{ text }}', as: answer, repetition_penalty: 1.1, max_tokens: 9}}]
input: {path: rows.jsonl}
output: {path: out}
"""


@pytest.fixture
def job(tmp_path):
    """Writes the job file for a server, and returns its path."""

    def write(url, settings="", rows=2):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(rows)))
        (tmp_path / "job.yaml").write_text(JOB % (url, settings))
        return tmp_path / "job.yaml"

    return write


OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama-server"}


@pytest.mark.parametrize("owner", OWNERS)
def test_a_server_is_asked_by_get_alone_what_it_is(millstream, job, tmp_path, owner):
    with Server(owner=owner) as server:
        shown = millstream("run", job(server.url), "--dry-run").stdout
        assert f"model big: m/1, dialect {OWNERS[owner]}, at {server.url}" in shown
        assert not server.bodies
        millstream("run", job(server.url))
    penalty = "repeat_penalty" if owner == "llamacpp" else "repetition_penalty"
    assert [body[penalty] for _, body in server.bodies] == [1.1, 1.1]


@pytest.mark.parametrize("owner", ["openai", "system", None])
def test_a_server_that_does_not_say_what_it_is_counts_as_openai(millstream, job, owner):
    with Server(owner=owner) as server:
        failed = millstream("run", job(server.url), exit_code=1)
    assert "repetition_penalty: a server of dialect openai does not know it" in failed.stderr
    assert not server.bodies


@pytest.mark.parametrize("word", ["end", "ignore"])
def test_a_server_ends_answers_as_it_likes(millstream, job, word):
    with Server(owner="vllm") as server:
        failed = millstream("run", job(server.url), "--set", f"steps.answer.runaway={word}", exit_code=1)
    assert "runaway: goes with the native engine" in failed.stderr
    assert not server.bodies


@pytest.mark.parametrize("entry", [b'"id": %s', b'"id": "m/1", "owned_by": %s', b'"id": "m/1", "max_model_len": %s'])
def test_a_list_of_models_that_nests_deeply_says_nothing(millstream, job, entry):
    class Deep(Handler):
        def do_GET(self):
            self.answer(200, {}, b'{"data": [{%s}]}' % (entry % DEEP))

    with Server() as server:
        server.RequestHandlerClass = Deep
        failed = millstream("run", job(server.url), exit_code=1)
    assert "a server of dialect openai does not know it" in failed.stderr


def test_a_server_whose_kind_the_job_says_is_not_asked(millstream, job):
    with Server(owner="openai") as server:
        millstream("run", job(server.url, ", dialect: vllm"))
    assert not server.looks


def test_a_resumed_job_keeps_the_dialect_of_its_plan(millstream, job, tmp_path):
    with Server(owner="vllm", script=lambda body: (401, {}, b"{}")) as server:
        millstream("run", job(server.url), exit_code=3)
    with Server(owner="llamacpp") as server:
        millstream("run", job(server.url))
    assert not server.looks
    assert all("repetition_penalty" in body for _, body in server.bodies)
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == ["re: row 0", "re: row 1"]


def test_a_key_that_is_refused_is_said_at_once(millstream, job, monkeypatch):
    monkeypatch.setenv("STUB_KEY", "canary")
    with Server(owner="vllm", key="another") as server:
        failed = millstream("run", job(server.url, ", api_key: {env: STUB_KEY}"), exit_code=3)
        assert "answers 401: check the key that `api_key` names" in failed.stderr
        assert "canary" not in failed.stderr
        monkeypatch.setenv("STUB_KEY", "another")
        millstream("run", job(server.url, ", api_key: {env: STUB_KEY}"))


@pytest.mark.parametrize(("key", "code", "said"), [(" ", 1, "holds only blanks"), ("*", 3, "answers 401")])
def test_a_key_that_is_none_or_a_mere_sign_is_said(millstream, job, monkeypatch, key, code, said):
    monkeypatch.setenv("STUB_KEY", key)

    def script(body):
        return 401, {}, json.dumps({"error": {"message": "no * key"}}).encode()

    with Server(owner="vllm", key="another", script=script) as server:
        for dialect in ["auto", "vllm"] if key == " " else ["auto"]:
            settings = f", dialect: {dialect}, api_key: {{env: STUB_KEY}}"
            assert said in millstream("run", job(server.url, settings), exit_code=code).stderr
    with Server(script=script) as server:  # whose words hold the key
        settings = ", dialect: vllm, api_key: {env: STUB_KEY}"
        failed = millstream("run", job(server.url, settings), "--restart", exit_code=code)
        assert ("no ***" if key == "*" else said) in failed.stderr


def test_a_run_waits_for_a_server_that_is_not_there_yet_and_a_dry_run_does_not(millstream, job):
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    path = job(f"http://127.0.0.1:{port}/v1")
    failed = millstream("run", path, "--dry-run", exit_code=3)
    assert "no server answers that could say what it is" in failed.stderr
    assert "start it, or give its `dialect`" in failed.stderr
    command = [ROOT / "build/release/bin/millstream", "run", path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert any("waiting for a server" in line for line in run.stderr)
        with Server(owner="vllm", port=port):
            errors = run.stderr.read()
            assert run.wait() == 0, errors


def test_a_server_needs_a_certificate_that_is_trusted(millstream, job, tmp_path):
    tls, certificate = own_certificate(tmp_path)
    with Server(owner="vllm", tls=tls) as server:
        for settings in ["", ", dialect: vllm"]:
            failed = millstream("run", job(server.url, settings), exit_code=None)
            assert failed.returncode in (1, 3)
            assert "certificate" in failed.stderr
        assert not server.bodies
        failed = millstream("run", job(server.url, ", dialect: vllm, ca_file: nothing.pem"), exit_code=1)
        assert f"ca_file: cannot read {tmp_path}/nothing.pem" in failed.stderr
        millstream("run", job(server.url, f", dialect: vllm, ca_file: {certificate.name}"))
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == ["re: row 0", "re: row 1"]


def test_requests_share_a_connection_where_http_2_is_offered(millstream, job, tmp_path):
    tls, certificate = own_certificate(tmp_path)
    with Http2Server(tls, together=20) as server:
        settings = f", dialect: vllm, ca_file: {certificate.name}, max_in_flight: 20"
        millstream("run", job(server.url, settings, rows=200))
        assert server.num_connections == 1
    texts = [f"row {i}" for i in range(200)]
    assert sorted(server.answered) == sorted(texts)
    assert [row["answer"] for row in read_rows(tmp_path / "out")] == [f"re: {text}" for text in texts]
