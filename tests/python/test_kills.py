# SPDX-License-Identifier: Apache-2.0
"""Suite 3 of docs/reliability.md: real processes, killed by SIGKILL at every call to the disk and at random times."""

import concurrent.futures
import shutil
import subprocess
import threading
import time

import pytest
from torture import DRIVER, Clock, KilledJob, choices, kill_after, report

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
            again += sum(map(len, job.asked)) - len(set().union(*job.asked))
            shutil.rmtree(job.folder)
        with lock:
            for key, value in (("kills", kills), ("jobs", jobs), ("again", again)):
                total[key] += value

    in_workers(work, range(WORKERS))
    report("kill at random", **total, wrong=0)
    assert total["again"] <= total["kills"] * WORKERS  # what was given and not yet written
