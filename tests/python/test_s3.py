# SPDX-License-Identifier: Apache-2.0
"""Millstream's S3 client against servers on the loopback interface: our stub, whose conditions are atomic and which has
faults, and another project's server, which knows nothing of us."""

import datetime
import http.server
import json
import os
import socket
import subprocess
import threading
import urllib.request

import pytest
from conftest import ROOT
from s3_stub import KEY_ID, REGION, SECRET, Server
from stub_server import own_certificate
from torture import SEED, Clock, report

DRIVER = ROOT / "build/release/bin/s3_driver"


def environment(settings):
    """This process's environment without what it says of AWS, and with `settings`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return clean | {"HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true", "no_proxy": "*"} | settings


def drive(settings, *arguments):
    command = [DRIVER, *map(str, arguments)]
    return subprocess.run(command, env=environment(settings), capture_output=True, text=True, timeout=600)


def race(settings, folder, rounds, writers=8):
    """Lets writers publish the same parts at the same time, round by round, and returns how many won each."""
    processes = [
        subprocess.Popen(
            [DRIVER, "race", folder, str(writer)],
            env=environment(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for writer in range(writers)
    ]
    winners = []
    for number in range(rounds):
        for process in processes:
            process.stdin.write(f"part-{number}\n")
            process.stdin.flush()
        winners.append([process.stdout.readline().strip() for process in processes].count("won"))
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    return winners


def test_no_wrong_bytes_are_accepted_with_one_request_in_five_at_fault():
    clock = Clock(1)
    runs = requests = 0
    while clock.goes_on(runs):
        runs += 1
        with Server(faults=0.2, seed=SEED + runs) as server:
            done = drive(server.environment, "exercise", "s3://bucket/some folder", 1000, SEED + runs)
            assert done.returncode == 0, done.stderr
            assert not server.refused_signatures
            assert not server.changed_parts
            assert server.num_requests >= 10_000
            assert sum(server.num_faults.values()) / server.num_requests > 0.18
            assert all(server.num_faults.values()), server.num_faults
            requests += server.num_requests
    report("S3 requests, one in five at fault", requests=requests, wrong=0)


@pytest.mark.parametrize("faults", [0, 0.2])
def test_one_of_eight_racing_writers_wins_each_time(faults):
    with Server(faults=faults, seed=SEED) as server:
        assert race(server.environment, "s3://bucket/race", rounds=50) == [1] * 50
        assert not server.changed_parts
    report("S3 races", races=50, wrong=0)


def test_a_store_that_ignores_conditions_is_refused():
    with Server(honours_conditions=False) as server:
        done = drive(server.environment, "exercise", "s3://bucket/x", 8, 1)
    assert done.returncode == 1
    assert "this object store does not honour `If-None-Match: *`" in done.stderr


MISTAKES = {
    "no credentials": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "bucket", "set AWS_ACCESS_KEY_ID and"),
    "half of them": ({"AWS_SECRET_ACCESS_KEY": ""}, "bucket", "only one of AWS_ACCESS_KEY_ID and AWS_SECRET"),
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "canary"}, "bucket", "SignatureDoesNotMatch"),
    "no bucket": ({}, "other", "there is no bucket other"),
    "no region": ({"AWS_ENDPOINT_URL": "", "AWS_REGION": ""}, "bucket", "set AWS_REGION"),
    "wrong endpoint": ({"AWS_ENDPOINT_URL": "localhost"}, "bucket", "must begin with https:// or http://"),
    "not a bucket": ({}, "", "an S3 path is s3://bucket/folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_with_what_to_set(mistake):
    change, bucket, message = MISTAKES[mistake]
    with Server() as server:
        done = drive(server.environment | change, "exercise", f"s3://{bucket}/x", 8, 1)
    assert done.returncode == 1
    assert message in done.stderr
    assert "canary" not in done.stderr


def test_credentials_come_from_the_files_of_aws_tools(tmp_path):
    with Server() as server:
        settings = server.environment
        (tmp_path / "credentials").write_text(
            "[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n"
            f"[mine]\naws_access_key_id = {settings['AWS_ACCESS_KEY_ID']}\n"
            f"aws_secret_access_key={settings['AWS_SECRET_ACCESS_KEY']}\n"
        )
        (tmp_path / "config").write_text(
            f"[profile mine]\nregion = {settings['AWS_REGION']}\nendpoint_url = {server.url}\n"
        )
        files = {
            "AWS_PROFILE": "mine",
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
        }
        done = drive(files, "exercise", "s3://bucket/x", 8, 1)
        assert done.returncode == 0, done.stderr
        done = drive(files | {"AWS_PROFILE": "none"}, "exercise", "s3://bucket/x", 8, 1)
        assert done.returncode == 1
        assert "AWS_REGION" in done.stderr


class RoleService(http.server.BaseHTTPRequestHandler):
    """Gives the credentials of a role that are about to expire once, and then fails."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked += 1
        expires = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=4)).strftime("%Y-%m-%dT%H:%M:%SZ")
        role = {"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET, "Token": "token", "Expiration": expires}
        self.send_response(200 if self.server.asked == 1 else 500)
        self.end_headers()
        self.wfile.write(json.dumps(role).encode() if self.server.asked == 1 else b"")


def test_credentials_of_a_role_are_used_while_they_are_good_though_no_newer_ones_are_to_be_had():
    with Server() as server, http.server.ThreadingHTTPServer(("127.0.0.1", 0), RoleService) as roles:
        threading.Thread(target=roles.serve_forever, daemon=True).start()
        roles.asked = 0
        url = f"http://127.0.0.1:{roles.server_address[1]}/role"
        keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": url}
        done = drive(server.environment | keys, "exercise", "s3://bucket/x", 80, 1)
        roles.shutdown()
    assert done.returncode == 0, done.stderr
    assert roles.asked > 1


def test_a_server_needs_a_certificate_that_is_trusted(tmp_path):
    tls, certificate = own_certificate(tmp_path)
    with Server(tls=tls) as server:
        done = drive(server.environment, "exercise", "s3://bucket/x", 8, 1)
        assert done.returncode == 1
        assert "certificate" in done.stderr
        trusted = server.environment | {"AWS_CA_BUNDLE": str(certificate)}
        done = drive(trusted, "exercise", "s3://bucket/x", 80, 1)
        assert done.returncode == 0, done.stderr
        assert server.num_requests > 100


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, port, folder):
    """Starts a server and returns it once it answers."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, cwd=folder)
    patience = threading.Event()  # that nobody sets
    for _ in range(600):
        assert process.poll() is None, (folder / "server.log").read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        patience.wait(0.1)
    raise AssertionError("the server does not come up")


def moto(folder, port):
    process = start([ROOT / ".deps/moto/bin/moto_server", "-H", "127.0.0.1", "-p", port], port, folder)
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT"))
    return process


def versitygw(folder, port):
    for name in ("data/bucket", "metadata"):
        (folder / name).mkdir(parents=True)
    keys = ["--access", KEY_ID, "--secret", SECRET, "--region", REGION]
    address = ["--port", f"127.0.0.1:{port}"]
    return start(
        [ROOT / ".deps/versitygw", *keys, *address, "posix", "--sidecar", folder / "metadata", folder / "data"],
        port,
        folder,
    )


@pytest.fixture(params=[moto, versitygw])
def other_server(request, tmp_path):
    """The settings of a running S3 server that is not ours (scripts/s3-server installs one of them)."""
    installed = {moto: ".deps/moto/bin/moto_server", versitygw: ".deps/versitygw"}
    if not (ROOT / installed[request.param]).exists():
        if any((ROOT / path).exists() for path in installed.values()):
            pytest.skip("scripts/s3-server installed the other one")
        pytest.fail("no S3 server: run scripts/s3-server")
    port = free_port()
    process = request.param(tmp_path, port)
    yield {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
    }
    process.terminate()
    process.wait()


def test_the_protocol_holds_with_a_server_of_others(other_server):
    done = drive(other_server, "exercise", "s3://bucket/some folder", 200, 1)
    assert done.returncode == 0, done.stderr
    done = drive(other_server, "exercise", "s3://other/x", 8, 1)
    assert done.returncode == 1
    assert "there is no bucket other" in done.stderr
