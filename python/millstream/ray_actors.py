# SPDX-License-Identifier: Apache-2.0
"""The actors of a job on a Ray cluster. They start `millstream` processes and carry what these say to each other; what
is done is decided there (src/job/coordinator.h). Only bytes and numbers travel.

Both kinds are detached: they outlive the command that began them. The coordinator is begun again by Ray wherever it
dies, and loads the ledger; it makes a worker for each node, tells them when their machines are about to go, and ends
them with the job.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import signal
import struct
import threading
import time

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import ActorDiedError, ActorUnavailableError, ActorUnschedulableError, GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from millstream import frames
from millstream.command import BINARY
from millstream.ray_cluster import NAMESPACE, draining, nodes

GONE = (ActorDiedError, ActorUnavailableError, ActorUnschedulableError)
SILENCE_SECONDS = 20  # of a worker that has been heard: it stands still
FLUSH_SECONDS = 10  # before its machine goes, a worker cuts short what it has
PATIENCE_SECONDS = 900  # for a coordinator that is gone
TICK_SECONDS = 0.5
SLOW_SECONDS = 15
LINGER_SECONDS = 2
KEEP_SECONDS = 60  # the end of a job, for a command that asks
MAX_SOON, SOON_SECONDS = 5, 10  # so many workers in a row that die so soon will not do better


def binary(settings):
    """The `millstream` to start: that of our package, or where the command that began the job is, in a checkout."""
    if not BINARY.exists():
        return settings["binary"]
    BINARY.chmod(0o755)  # Ray's archives do not keep it
    return str(BINARY)


def oom_kills():
    """How many processes the kernel of this machine has killed for want of memory."""
    with open("/proc/vmstat") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def actor_name(output):
    """The name of the coordinator of the job that writes there."""
    return "millstream-" + hashlib.sha256(output.encode()).hexdigest()[:24]


class NodeWorker:
    """The worker of a node. It lives as long as the job, its process may be begun again."""

    def __init__(self, coordinator, settings):
        self._coordinator, self._settings = coordinator, json.loads(settings)
        self._process = None
        self._at_work = threading.Lock()
        self._idle = threading.Timer(0, os._exit)

    def work(self, node, cores):
        """Works until nothing is left to do, or nothing may be begun any more."""
        with self._at_work:  # a coordinator that began anew waits for what the one before it has begun
            self._idle.cancel()
            soon = 0
            while soon < MAX_SOON:
                began = time.monotonic()
                code = self._run_process(node, cores)
                if code in (0, 75):
                    self._idle = threading.Timer(KEEP_SECONDS, os._exit, (0,))  # should nobody end this actor
                    self._idle.start()
                    return
                soon = soon + 1 if time.monotonic() - began < SOON_SECONDS else 0
            how = f"of signal {-code}" if code < 0 else f"with exit code {code}"
            self._ask("fail", f"{soon} workers in a row died within seconds on node {node}, the last {how}")

    def flush(self):
        """The machine is about to go: makes durable what is there."""
        if self._process:
            self._process.send_signal(signal.SIGINT)

    def _run_process(self, node, cores):
        killed_before = oom_kills()
        joined = self._ask("join", node, cores)
        (worker,) = struct.unpack_from("<q", joined)
        self._process, link = frames.start(binary(self._settings), "worker")
        link.send(joined[8:])
        try:
            self._carry(node, worker, link)
        finally:
            link.close()
        code = self._process.wait()
        self._ask("died", node, worker, max(-code, 0), max(code, 0), int(oom_kills() > killed_before))
        return code

    def _carry(self, node, worker, link):
        """Brings the reports of the process to the coordinator, and the answers back, until it ends."""
        patience = None
        while True:
            try:
                report = link.receive(patience)
            except TimeoutError:
                self._process.kill()
                return
            if report is None:
                return
            patience = SILENCE_SECONDS
            link.send(self._ask("report", node, worker, report))

    def _ask(self, method, *arguments):
        """Asks the coordinator, and waits while it is begun again."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                coordinator = ray.get_actor(self._coordinator, NAMESPACE)
                return ray.get(getattr(coordinator, method).remote(*arguments), timeout=60)
            except (*GONE, GetTimeoutError, ValueError):
                if time.monotonic() > deadline:
                    os._exit(1)  # nobody would end this actor, and it holds its machine; its process ends with it
                time.sleep(TICK_SECONDS)


class Node:
    """What the coordinator knows of a node that it has a worker on."""

    def __init__(self, actor, done):
        self.actor, self.done = actor, done
        self.workers, self.told_to_leave = set(), set()  # the numbers of its processes
        self.has_joined = False
        self.is_flushed = False
        self.since = time.monotonic()


class Coordinator:
    """The coordinator of one job: a process of ours, on a loop of its own."""

    def __init__(self, name, settings, job):
        self._name, self._settings_bytes, self._job = name, settings, job
        self._settings = json.loads(settings)
        self._life = os.urandom(8).hex()
        self._again = ray.get_runtime_context().was_current_actor_reconstructed
        self._events = []  # frames for the command, but for the next two
        self._said = set()
        self._shown = self._failure = self._end = None
        self._was_told = False
        self._needs = None  # what workers need; none: it is not ready yet
        self._stop = self._link = None
        self._exchanges, self._waiting = itertools.count(1), {}
        self._nodes = {}
        self._has_looked = False
        self._not_before, self._num_failures = {}, {}  # by node
        self._loop = asyncio.new_event_loop()
        self._ready = asyncio.Event()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._run(), self._loop)

    # For commands:

    async def describe(self):
        """The version and the job that it was begun with; whether a command has been told how the job ended."""
        return self._settings["version"], hashlib.sha256(self._job).hexdigest(), self._was_told

    async def look(self, life, seen):
        """What came after the first `seen` events of this life of the coordinator, and the state of now."""
        since = self._events[seen if life == self._life else 0 :]
        state = [content for content in (self._shown, self._end) if content is not None]
        self._was_told = self._end is not None
        return self._life, len(self._events), since + state

    async def stop(self, may_finish):
        """Stops the job: what is begun may finish, or is cut short."""
        self._stop = frames.frame(frames.STOP, body=bytes([may_finish]))
        if self._link:
            self._link.send(self._stop)  # also to one that is not ready yet

    # For workers:

    async def join(self, node, cores):
        """A number for a new process of a node's worker, and what it is to be told."""
        welcome = await self._on_loop(self._exchange(frames.JOIN, cores))
        if node in self._nodes:
            self._nodes[node].has_joined = True
            self._nodes[node].workers.add(struct.unpack_from("<q", welcome)[0])
        return welcome

    async def report(self, node, worker, report):
        """The coordinator's answer to a worker's report."""
        self._num_failures.pop(node, None)
        if node in self._nodes:
            self._nodes[node].has_joined = True
            self._nodes[node].workers.add(worker)
        return await self._on_loop(self._exchange(frames.REPORT, body=report))

    async def died(self, node, worker, signal_number, exit_code, for_want_of_memory):
        """A worker's process has ended."""
        if node in self._nodes:
            self._nodes[node].workers.discard(worker)
        await self._on_loop(self._send(frames.frame(frames.DIED, worker, signal_number, exit_code, for_want_of_memory)))

    async def fail(self, why):
        """The job cannot go on."""
        await self._on_loop(self._finish(frames.frame(frames.FAIL, body=b"\3" + why.encode())))

    def _on_loop(self, coroutine):
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    # On the loop:

    async def _run(self):
        try:
            soon = 0
            while not self._end:
                began = time.monotonic()
                end, code = await self._run_process()
                if end:
                    self._end = self._failure or end
                soon = soon + 1 if time.monotonic() - began < SOON_SECONDS else 0
                if not end and soon == MAX_SOON:
                    raise RuntimeError(f"its process died {soon} times within seconds, the last time with {code}")
                self._again = True
                self._forget_process()
        except Exception as error:
            words = f"the job's coordinator failed: {error}; run this again to go on"
            self._end = frames.frame(frames.FAIL, body=b"\1" + words.encode())
        await self._until_it_works(self._dismiss)
        keep_until = time.monotonic() + KEEP_SECONDS
        while not self._was_told and time.monotonic() < keep_until:
            await asyncio.sleep(TICK_SECONDS)
        await asyncio.sleep(LINGER_SECONDS)  # another command may look as well
        await self._until_it_works(lambda: ray.kill(ray.get_actor(self._name, NAMESPACE)))

    async def _until_it_works(self, what):
        while True:
            try:
                return await self._loop.run_in_executor(None, what)
            except Exception as error:
                self._say_once(f"Ray: {error}; trying again")
                await asyncio.sleep(TICK_SECONDS)

    async def _run_process(self):
        """Runs the coordinator's process to its end. Returns how the job ended, if it said so, and its exit code."""
        process, self._link = frames.start(binary(self._settings), "coordinator")
        self._link.send(
            frames.frame(frames.BEGIN, body=bytes([self._again]) + self._settings["id"].encode() + self._job)
        )
        if self._stop:
            self._link.send(self._stop)
        watch = end = None
        try:
            while content := await self._loop.run_in_executor(None, self._link.receive):
                if content[0] == frames.READY:
                    self._needs = json.loads(content[1:])
                    self._ready_at = time.monotonic()
                    self._ready.set()
                    self._looking = self._loop.run_in_executor(None, self._ask_for_machines)
                    watch = self._loop.create_task(self._watch_nodes())
                elif content[0] == frames.ANSWER:
                    self._waiting.pop(struct.unpack_from("<q", content, 1)[0]).set_result(content[9:])
                elif content[0] == frames.SHOW:
                    self._shown = content
                elif content[0] == frames.SAY:
                    self._events.append(content)
                elif content[0] == frames.END:
                    end = content
                    break
        finally:
            if watch:
                watch.cancel()
                await asyncio.wait([self._looking])
            self._link.close()
        return end, await self._loop.run_in_executor(None, process.wait)

    def _forget_process(self):
        self._ready.clear()
        for answer in self._waiting.values():
            answer.set_result(None)  # it is asked for once more
        self._waiting.clear()

    async def _finish(self, failure):
        self._failure = self._failure or failure
        await self._send(frames.frame(frames.STOP, body=b"\0"))

    async def _send(self, content):
        await self._ready.wait()
        self._link.send(content)

    async def _exchange(self, kind, *numbers, body=b""):
        content = None
        while content is None:
            await self._ready.wait()
            exchange = next(self._exchanges)
            answer = self._waiting[exchange] = self._loop.create_future()
            self._link.send(frames.frame(kind, exchange, *numbers, body=body))
            content = await answer
        return content

    async def _watch_nodes(self):
        while True:
            await asyncio.shield(self._looking)  # one look at a time, also when this task is cancelled
            await asyncio.sleep(TICK_SECONDS)
            self._looking = self._loop.run_in_executor(None, self._look_at_nodes)

    # On a thread of its own, one at a time:

    def _ask_for_machines(self):
        """Asks a cluster that grows on demand."""
        least = self._needs["min_workers"]
        if least > 1:
            bundle = {"CPU": self._needs.get("cpus", 1)} | ({"GPU": self._needs["gpus"]} if self._needs["gpus"] else {})
            self._try(lambda: request_resources(bundles=[bundle] * least))

    def _look_at_nodes(self):
        self._try(self._look)

    def _try(self, what):
        try:
            what()
        except Exception as error:
            self._say_once(f"Ray: {error}; trying again")

    def _look(self):
        there, going = nodes(), draining()
        now = time.monotonic()
        for node, known in list(self._nodes.items()):
            if node in going:
                self._drain(known, going[node])
            ended, _ = ray.wait([known.done], timeout=0)
            if ended:
                del self._nodes[node]
                self._bury(node, known)
            elif not known.has_joined and now - known.since > SLOW_SECONDS:
                self._say_once(
                    f"node {node[:8]} does not give a worker what it needs: other work has it, or it starts slowly"
                )
                if len(there) > len(self._nodes) and now - known.since > 2 * SLOW_SECONDS:
                    del self._nodes[node]
                    ray.kill(known.actor)
                    self._not_before[node] = now + KEEP_SECONDS
        if not self._stop and not self._failure:
            self._use(there, going, now)
        if not self._nodes and now - self._ready_at > SLOW_SECONDS:
            self._say_once("waiting for machines: none of the cluster has what `resources` of the job file says")

    def _use(self, there, going, now):
        """Brings workers to nodes that have none, to those first that had one of the coordinator before."""
        before = self._actors_of_nodes()
        for node in sorted(there, key=lambda node: node not in before):
            if len(self._nodes) >= self._needs.get("max_workers", len(there)):
                break
            is_free = node not in self._nodes and node not in going and self._not_before.get(node, 0) < now
            if is_free and self._fits(node, there[node]):
                self._add(node, there[node])
        if not self._has_looked:
            self._has_looked = True
            for node in before - set(self._nodes):
                self._end_actor(node)

    def _actors_of_nodes(self):
        """The nodes that have an actor of this job's output, whoever made it."""
        prefix = self._name + "-"
        actors = ray.util.list_named_actors(all_namespaces=True)
        names = [actor["name"] for actor in actors if actor["namespace"] == NAMESPACE]
        return {name[len(prefix) :] for name in names if name.startswith(prefix)}

    def _end_actor(self, node):
        with contextlib.suppress(ValueError):  # it has just gone by itself
            ray.kill(ray.get_actor(f"{self._name}-{node}", NAMESPACE))

    def _fits(self, node, what):
        has = what["Resources"]
        if any(what["Labels"].get(label) != value for label, value in self._needs["labels"].items()):
            return False
        if has.get("CPU", 0) < self._needs.get("cpus", 1) or has.get("GPU", 0) < self._needs["gpus"]:
            return False
        if has.get("memory", 0) < self._needs["memory"]:
            self._say_once(
                f"node {node[:8]} is not used: a worker needs {self._needs['memory'] / 2**30:.1f} GiB, it has "
                f"{has.get('memory', 0) / 2**30:.1f} of memory (`resources: {{memory: }}` says how much)"
            )
            return False
        return True

    def _add(self, node, what):
        cores = self._needs.get("cpus", int(what["Resources"]["CPU"]))
        actor = (
            ray.remote(NodeWorker)
            .options(
                name=f"{self._name}-{node}",
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=cores,
                num_gpus=self._needs["gpus"],
                memory=self._needs["memory"],
                max_concurrency=3,  # at work, waiting to be so, told to flush
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote(self._name, self._settings_bytes)
        )
        self._nodes[node] = Node(actor, actor.work.remote(node, cores))

    def _drain(self, known, until_ms):
        for worker in known.workers - known.told_to_leave:
            known.told_to_leave.add(worker)
            self._link.send(frames.frame(frames.DRAIN, worker))
        if until_ms and not known.is_flushed and until_ms / 1000 - time.time() < FLUSH_SECONDS:
            known.is_flushed = True
            known.actor.flush.remote()

    def _bury(self, node, known):
        """A node's worker has ended, or is gone with its machine."""
        try:
            ray.get(known.done)
        except RayError as error:
            words = str(error).splitlines()[0]
            self._say(f"the worker of node {node[:8]} is gone: {words}")
            failures = self._num_failures[node] = self._num_failures.get(node, 0) + 1
            self._not_before[node] = time.monotonic() + failures * SOON_SECONDS
            if failures >= MAX_SOON and not self._nodes:
                words = f"no worker comes to work: on node {node} it failed {failures} times, the last time: {words}"
                asyncio.run_coroutine_threadsafe(self.fail(words), self._loop)
        for worker in known.workers:
            self._link.send(frames.frame(frames.DIED, worker, 0, 0, 0))
        ray.kill(known.actor)

    def _dismiss(self):
        for node in self._actors_of_nodes():
            self._end_actor(node)
        self._nodes.clear()
        if self._needs and self._needs["min_workers"] > 1:
            request_resources(bundles=[])

    def _say(self, words):
        self._events.append(frames.frame(frames.SAY, body=words.encode()))

    def _say_once(self, words):
        if words not in self._said:
            self._said.add(words)
            self._say(words)
