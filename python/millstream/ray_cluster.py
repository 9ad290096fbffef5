# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster as we find it: whether it may be trusted, its nodes, and which of them are about to go."""

import json
import os
import socket
import subprocess
import sys

import ray

NAMESPACE = "millstream"
HEAD = "node:__internal_head__"  # a resource of the head alone


class Refusal(Exception):
    """The command ends with these words, and this exit code."""

    def __init__(self, words, exit_code=1):
        super().__init__(words)
        self.exit_code = exit_code


PROBE = """
import json, sys
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
print(json.dumps([node.node_manager_address for node in nodes.values()]))
"""


def _ask_for_nodes(address, **environment):
    """The addresses of a cluster's nodes, or None if it does not tell; Ray reads its environment once a process."""
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, address], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return json.loads(probe.stdout) if probe.returncode == 0 else None


def _is_own(address):
    """Whether an address is one of this machine's."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
            return True
        except OSError:
            return False


def check_trust(address, allow_unauthenticated):
    """Refuses a cluster that runs anyone's code. Returns whether all of its nodes are this machine."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    found = _ask_for_nodes(address, **without, RAY_AUTH_MODE="disabled")
    is_open = found is not None
    if not is_open:
        found = _ask_for_nodes(address, **os.environ)  # with our token, if we have one
    if found is None:
        raise Refusal(
            f"the Ray cluster at {address} does not answer: it wants a token that this process lacks (RAY_AUTH_MODE="
            "token, with RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, as on its nodes), or is no Ray 2.60"
        )
    is_local = bool(found) and all(map(_is_own, found))
    if is_open and not is_local and not allow_unauthenticated:
        raise Refusal(
            f"the Ray cluster at {address} asks for no token: whoever reaches its port can run code on it, and read "
            "what jobs read. Start it with RAY_AUTH_MODE=token (docs/scale-out.md), or say "
            "--allow-unauthenticated-ray if its network keeps others out"
        )
    return is_local


def find(address):
    """The address of the cluster's control store (GCS) that an argument of --ray means."""
    from ray._private.services import canonicalize_bootstrap_address

    if address.startswith("ray://"):
        raise Refusal(
            f"--ray {address}: Ray's client protocol is not used; run this on a machine of the cluster (on its head, "
            "say by `ray exec` or `ray job submit`), with --ray alone"
        )
    try:
        found = canonicalize_bootstrap_address(address or "auto")
    except (ConnectionError, ValueError) as error:
        if address:
            raise Refusal(f"--ray {address}: {error}") from None
        found = None
    if not found:
        raise Refusal(
            "no Ray cluster runs on this machine: start one (`ray start --head`), or give an address (--ray HOST:PORT)"
        )
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise Refusal(f"no Ray cluster answers at {found}: {error}") from None
    return found


def connect(address, allow_unauthenticated, package):
    """Connects this process to a cluster; `package(is_local)` gives the runtime environment that we need there."""
    address = find(address)
    try:
        is_local = check_trust(address, allow_unauthenticated)
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env=package(is_local),
        )
    except (ConnectionError, RuntimeError, subprocess.TimeoutExpired) as error:
        raise Refusal(f"cannot connect to the Ray cluster at {address}: {error}") from None
    return is_local


def nodes():
    """The nodes that are there, by their ids: what `ray.nodes()` says of each."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def draining():
    """The nodes that are about to go, by their ids: until when, in milliseconds of Unix time; 0: not known."""
    return ray._private.state.state.get_draining_nodes()
