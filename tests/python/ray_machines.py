# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster on this machine, of nodes that tests kill, stop and drain."""

import os
import pathlib
import signal
import time

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else Ray moves 127.0.0.1 to another address
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

HERE = {"node_ip_address": "127.0.0.1"}
# A dead node is found within 1.3 s instead of 13.8.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}


def descendants(pid):
    """The processes that a process started, and those that they started."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        children = [child for child, its in parents.items() if its == parent]
        found += children
        todo += children
    return found


def command_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


class Machines:
    """`with Machines(2) as machines:` has a head without CPUs and two nodes of one CPU each."""

    def __init__(self, count, **config):
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK | config, **HERE}
        )
        self.address = self.cluster.address
        self.nodes = []
        for _ in range(count):
            self.add()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            for pid in self.processes(node):
                os.kill(pid, signal.SIGCONT)
        self.cluster.shutdown()

    def add(self):
        node = self.cluster.add_node(num_cpus=1, **HERE)
        self.nodes.append(node)
        return node

    def processes(self, node):
        raylet = node.all_processes["raylet"][0].process.pid
        return [raylet, *descendants(raylet)]

    def workers(self, node):
        """The `millstream worker` processes of a node."""
        return [pid for pid in self.processes(node) if "millstream worker" in command_of(pid)]

    def kill(self, node):
        """As if its power failed."""
        for pid in self.processes(node):
            os.kill(pid, signal.SIGKILL)
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def stop(self, node):
        for pid in self.processes(node):
            os.kill(pid, signal.SIGSTOP)

    def drain(self, node, seconds):
        """Its machine will be taken away in so many seconds."""
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = int((time.time() + seconds) * 1000)
        accepted, why = GcsClient(address=self.address).drain_node(node.node_id, reason, "spot", deadline)
        assert accepted, why

    def kill_coordinator(self):
        """Kills the actor's process; Ray begins it again."""
        pids = [pid for pid in descendants(os.getpid()) if "ray::Coordinator" in command_of(pid)]
        assert len(pids) == 1, [(pid, command_of(pid), descendants(pid)) for pid in pids]
        os.kill(pids[0], signal.SIGKILL)

    def wait_until_idle(self, seconds=20):
        """Until no actor lives."""
        ray.init(address=self.address, namespace="millstream", logging_level="ERROR", log_to_driver=False)
        try:
            end = time.monotonic() + seconds
            while actors := ray.util.list_named_actors(all_namespaces=True):
                assert time.monotonic() < end, actors
        finally:
            ray.shutdown()
