# SPDX-License-Identifier: Apache-2.0
"""Suites 3, 13 and 14 of docs/reliability.md: real processes, killed at every call to the disk and at random times, two
of them at once, and on a disk that is full."""

import collections
import concurrent.futures
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from torture import DRIVER, MILLSTREAM, Clock, KilledJob, choices, kill_after, report, stop

WORKERS = 2
RANDOM_KILLS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    subprocess.run([DRIVER, "model", folder / "tiny.gguf"], check=True)
    return folder


def in_workers(work, items):
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(work, items))


def test_a_kill_at_any_call_to_the_disk_costs_no_row(folder):
    calls = KilledJob(folder / "undisturbed").run_to_end()

    def kill(call):
        job = KilledJob(folder / f"call-{call}")
        for at in (call, choices("call", call).randrange(1, calls)):
            process = job.start(at)
            _, err = process.communicate(timeout=120)
            assert process.returncode in (0, -9), f"killed at call {at}: {err}"
            job.look()
        job.run_to_end()
        shutil.rmtree(job.folder)
        return process.returncode != 0

    seconds = in_workers(kill, range(1, calls + 1))
    report("kill at every call", kills=calls + sum(seconds), jobs=calls, wrong=0)
    assert calls > 50


def test_kills_at_random_times_cost_no_row(folder):
    start = time.monotonic()
    KilledJob(folder / "timed").run_to_end()
    duration = time.monotonic() - start
    clock = Clock(RANDOM_KILLS // WORKERS)
    lock = threading.Lock()
    total = {"kills": 0, "jobs": 0, "again": 0}

    def work(worker):
        random = choices("time", worker)
        kills = jobs = again = 0
        while clock.goes_on(kills):
            job = KilledJob(folder / f"random-{worker}-{jobs}")
            while kill_after(job.start(), random.random() * duration):
                kills += 1
                job.look()
            job.look()
            job.check_whole()
            jobs += 1
            again += sum(map(len, job.asked)) - len(set.union(*job.asked))
            shutil.rmtree(job.folder)
        with lock:
            for key, value in (("kills", kills), ("jobs", jobs), ("again", again)):
                total[key] += value

    in_workers(work, range(WORKERS))
    report("kill at random", **total, wrong=0)
    assert total["again"] <= total["kills"] * WORKERS  # what was given and not yet written


def stop_at_random(process, seconds):
    """Stops a process with SIGSTOP after so long; False if it ended before."""
    try:
        process.wait(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        return stop(process)


def test_a_second_driver_is_refused_and_told_who_is_at_work(folder):
    job = KilledJob(folder / "refused")
    first = job.start()
    while not (job.state / "journal-0001").exists() and first.poll() is None:
        pass  # it takes the lock before
    assert stop(first)
    second = subprocess.run([MILLSTREAM, "run", job.folder / "job.yaml"], capture_output=True, text=True, timeout=60)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 75, second.stderr
    assert f"process {first.pid} on {socket.gethostname()}" in second.stderr
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    job.look()
    job.check_whole()


def test_two_drivers_without_a_lock_lose_and_double_no_row(folder):
    """A driver that was stopped for long comes back after another took over: the lock's file was deleted."""
    job = KilledJob(folder / "pace")
    start = time.monotonic()
    calls = job.run_to_end()
    duration = time.monotonic() - start
    random = choices("two drivers")
    clock = Clock(20)
    takeovers = runs = 0
    exits = collections.Counter()
    while clock.goes_on(takeovers):
        job = KilledJob(folder / f"two-{runs}")
        runs += 1
        first = job.start()
        if stop_at_random(first, random.uniform(0.3, 1) * duration):
            takeovers += 1
            job.had_two_drivers = True
            job.look()
            (job.state / "LOCK").unlink(missing_ok=True)
            second = job.start(kill_at=random.choice([0, random.randrange(1, calls)]))
            _, err = second.communicate(timeout=60)
            assert second.returncode in (0, -9), err
            job.look()
            first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=60)
        exits[first.returncode] += 1
        assert first.returncode in (0, 75), err
        assert first.returncode == 0 or "another run" in err, err
        job.look()
        job.run_to_end()
        shutil.rmtree(job.folder)
    report("two drivers", takeovers=takeovers, jobs=runs, exits=dict(exits), wrong=0)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", path], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here: " + mounted.stderr.strip())
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)  # a process of a test that failed may stand there


def fill(disk, left):
    """Leaves so many bytes of a file system, or a little more: its count of free ones is no exact one."""
    for slack in itertools.count(0, 1 << 16):
        free = shutil.disk_usage(disk).free - slack
        with (disk / "filler").open("wb") as file, contextlib.suppress(OSError):
            return os.posix_fallocate(file.fileno(), 0, max(free - left, 1))


def test_a_full_disk_stops_a_job_that_goes_on_once_there_is_room(folder, small_disk):
    start = time.monotonic()
    KilledJob(folder / "full-pace", small_disk / "pace").run_to_end()
    duration = time.monotonic() - start
    random = choices("full")
    clock = Clock(10)
    full = runs = ballasts = 0
    while clock.goes_on(full):
        job = KilledJob(folder / f"full-{runs}", small_disk / f"out-{runs}")
        runs += 1
        had_ballast = False
        if runs % 2 == 0:  # the disk is full before it starts, or gets full while it works
            fill(small_disk, random.randrange(4, 200) * 1024)
            process = job.start()
        else:
            process = job.start()
            while not any(job.state.glob("tmp/*-ballast")) and process.poll() is None:
                pass
            if stop_at_random(process, random.choice([0, random.uniform(0, 0.3) * duration])):
                fill(small_disk, random.randrange(4, 64) * 1024)
                had_ballast = any(job.state.glob("tmp/*-ballast"))
                process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 75), err
        assert not any(job.state.glob("tmp/*-ballast"))
        if process.returncode == 75:
            full += 1
            assert "make room" in err, err
        if process.returncode == 75 and had_ballast:
            ballasts += 1
            assert re.search(r"\d MB (left|are free)", err), err
            assert b'"free_bytes"' in b"".join(path.read_bytes() for path in job.state.glob("journal-*")), err
        (small_disk / "filler").unlink(missing_ok=True)
        job.look()
        job.run_to_end()
        shutil.rmtree(job.output)
        shutil.rmtree(job.state)
        shutil.rmtree(job.folder)
    assert ballasts > 0
    report("disk full", full=full, jobs=runs, wrong=0)


def test_a_disk_that_is_full_of_parts_keeps_them(small_disk, tmp_path):
    rows = 4000  # that fit with what a run keeps free
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"id": row, "text": "x" * 4000}) + "\n" for row in range(rows))
    )
    (tmp_path / "job.yaml").write_text(
        f"input: {{path: rows.jsonl}}\nsplit_rows: 500\noutput: {{path: {small_disk}/out, format: jsonl}}\n"
        'steps:\n  - set: {more: "{{ id }}"}\n'
    )
    fill(small_disk, 10 << 20)
    command = [MILLSTREAM, "run", tmp_path / "job.yaml"]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert stopped.returncode == 75 and "make room" in stopped.stderr, stopped.stderr
    assert stopped.stderr.count("it is in memory (tmpfs)") == 1
    kept = {part: part.stat().st_mtime_ns for part in (small_disk / "out").glob("*")}
    (small_disk / "filler").unlink()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert kept and {part: part.stat().st_mtime_ns for part in kept} == kept
    found = [json.loads(line)["id"] for part in sorted((small_disk / "out").glob("*")) for line in part.open()]
    assert found == list(range(rows))
