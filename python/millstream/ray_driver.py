# SPDX-License-Identifier: Apache-2.0
"""What `millstream run --ray` starts: finds the job's coordinator on the cluster, or begins it, and carries what it
says to the command and back."""

import hashlib
import json
import pathlib
import socket
import sys
import time
import uuid

try:
    import ray
except ImportError:
    raise SystemExit(f"{sys.executable} has no Ray: pip install 'ray==2.60.*', or set MILLSTREAM_PYTHON") from None
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError

from millstream import frames
from millstream.command import BINARY
from millstream.ray_actors import Coordinator, actor_name
from millstream.ray_cluster import HEAD, NAMESPACE, Refusal, connect

POLL_SECONDS = 0.3
GOING_SECONDS = 60
SLOW_SECONDS = 15
UNANSWERED_SECONDS = 300  # by a coordinator that is begun again


def package(settings):
    """The runtime environment that our actors need: our package, or in a checkout, for a cluster here, its place."""

    def environment(is_local):
        folder = pathlib.Path(__file__).resolve().parent
        if BINARY.exists():
            return {"py_modules": [str(folder)]}
        if not is_local:
            raise Refusal(
                "other machines need Millstream's wheel: `scripts/wheel` builds it; install it beside Ray "
                "(pip install), and use the `millstream` that comes with it"
            )
        return {"env_vars": {"PYTHONPATH": str(folder.parent)}}

    return environment


def coordinator_of(settings, job, command):
    """The job's coordinator, which is at work or begins now, and what it says of itself."""
    name, market = actor_name(settings["output"]), settings["coordinator"]
    # By default where the cluster dies anyway if it does.
    place = {"resources": {HEAD: 0.001}} if market == "head" else {"label_selector": {"ray.io/market-type": market}}
    coordinator = (
        ray.remote(Coordinator)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=10_000,
            **place,
        )
        .remote(name, json.dumps(settings | {"id": uuid.uuid4().hex}).encode(), job)
    )
    description = coordinator.describe.remote()
    say_at = time.monotonic() + SLOW_SECONDS
    while not ray.wait([description], timeout=POLL_SECONDS)[0]:
        if time.monotonic() > say_at:
            say_at = float("inf")
            words = f"waiting for a machine for the coordinator (`resources: {{coordinator: {market}}}`)"
            command.send(frames.frame(frames.SAY, body=words.encode()))
        if asked_to_stop(command, 0.01) is not None:
            ray.kill(coordinator)  # else it would begin when such a machine comes
            raise Refusal("stopped before the job had begun on the cluster", 75)
    return coordinator, ray.get(description)


def asked_to_stop(command, seconds):
    """What the command asks for within so many seconds: a STOP, an end (b""), or nothing (None)."""
    try:
        asked = command.receive(seconds)
    except TimeoutError:
        return None
    return b"" if asked is None else asked


def attach(settings, job, command):
    """The job's coordinator: the one that is at work, or a new one."""
    deadline = time.monotonic() + GOING_SECONDS
    while True:
        try:
            coordinator, (version, digest, was_told) = coordinator_of(settings, job, command)
            if not was_told:
                break
            if time.monotonic() > deadline:
                raise Refusal("an earlier run's coordinator does not go away; run this again", 75)
        except (ActorDiedError, ActorUnavailableError, ValueError):  # it is just going, or begins again
            if time.monotonic() > deadline:
                raise Refusal("the job's coordinator cannot be reached; run this again", 75) from None
        time.sleep(POLL_SECONDS)
    if version != settings["version"]:
        raise Refusal(
            f"the job for {settings['output']} is at work on the cluster with Millstream {version}, and this is "
            f"{settings['version']}: use that version, or stop the job with it first"
        )
    if digest != hashlib.sha256(job).hexdigest():
        raise Refusal(
            f"another job for {settings['output']} is at work on the cluster: run this again when it has ended, or "
            "stop it with its own command"
        )
    return coordinator


def carry(coordinator, command):
    """Shows the command what the job does, and stops the job at its word, until one of them has ended."""
    life, seen, stop = "", 0, None
    heard_at = time.monotonic()
    while True:
        if stop:
            coordinator.stop.remote(stop[1:] == b"\1")  # again and again: the coordinator may begin anew meanwhile
        try:
            life, seen, contents = ray.get(coordinator.look.remote(life, seen), timeout=60)
            heard_at = time.monotonic()
        except (ActorUnavailableError, GetTimeoutError) as error:
            if time.monotonic() - heard_at > UNANSWERED_SECONDS:
                raise Refusal(f"the job's coordinator does not answer: {error}; run this again to go on") from None
            contents = []
        except ActorDiedError:
            raise Refusal("the job's coordinator has ended; run this again to see how, or to go on", 75) from None
        for content in contents:
            if not command.send(content):
                return
            if content[0] in (frames.END, frames.FAIL):
                return
        asked = asked_to_stop(command, POLL_SECONDS)
        if asked == b"":
            return  # the command is gone, and the job goes on
        stop = asked or stop


def main():
    command = frames.Link(socket.socket(fileno=0))
    settings, job = json.loads(command.receive()), command.receive()
    try:
        connect(settings["address"], settings["allow_unauthenticated"], package(settings))
        carry(attach(settings, job, command), command)
    except (Refusal, RayError) as error:
        exit_code = error.exit_code if isinstance(error, Refusal) else 1
        command.send(frames.frame(frames.FAIL, body=bytes([exit_code]) + str(error).encode()))
