# SPDX-License-Identifier: Apache-2.0
"""Millstream's S3 client against servers on the loopback interface: our stub, whose conditions are atomic and which has
faults, and another project's server, which knows nothing of us."""

import os
import subprocess

import pytest
from conftest import ROOT
from s3_stub import Server

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
    with Server(faults=0.2, seed=7) as server:
        done = drive(server.environment, "exercise", "s3://bucket/some folder", 1000, 1)
        assert done.returncode == 0, done.stderr
        assert not server.refused_signatures
        assert not server.changed_parts
        assert server.num_requests >= 10_000
        assert sum(server.num_faults.values()) / server.num_requests > 0.18
        assert all(server.num_faults.values()), server.num_faults
        print(server.num_requests, server.num_faults)


@pytest.mark.parametrize("faults", [0, 0.2])
def test_one_of_eight_racing_writers_wins_each_time(faults):
    with Server(faults=faults, seed=3) as server:
        assert race(server.environment, "s3://bucket/race", rounds=50) == [1] * 50
        assert not server.changed_parts


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
