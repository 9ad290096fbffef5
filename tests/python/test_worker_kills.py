# SPDX-License-Identifier: Apache-2.0
"""Suite 4 of docs/reliability.md: a job that worker processes share, of which any, or its driver, is killed or stopped
at random moments: with a scripted engine, and with the real model."""

import concurrent.futures
import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest
from torture import DRIVER, MILLSTREAM, Clock, KilledJob, asked_in, choices, report, workers_of

JOBS_AT_ONCE = 2
SILENCE_MS = 500  # of a worker that is taken for dead; killed a third later


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker-kills")
    subprocess.run([DRIVER, "model", folder / "tiny.gguf"], check=True)
    return folder


def send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def ends_within(process, seconds):
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    return process.returncode is not None


class Disturbed:
    """A driver with workers, which are disturbed until it ends. Counts what was done to them."""

    def __init__(self, random, longest_stop, look=lambda: None):
        self.random, self.longest_stop, self.look = random, longest_stop, look
        self.stopped = {}  # process: for how many seconds, at most
        self.counts = {"workers killed": 0, "drivers killed": 0, "workers stopped": 0, "drivers stopped": 0}

    def run(self, driver, pause):
        """Until the driver has ended: True if it was killed. Its workers may live on."""
        while not ends_within(driver, self.random.random() * pause):
            workers = workers_of(driver.pid)
            is_driver = not workers or self.random.random() < 0.2
            who = "drivers" if is_driver else "workers"
            victim = driver.pid if is_driver else self.random.choice(sorted(workers))
            if self.random.random() < 0.7:
                self.counts[who + " killed"] += 1
                send(victim, signal.SIGKILL)
                if is_driver:
                    driver.wait()
            else:
                self.counts[who + " stopped"] += 1
                send(victim, signal.SIGSTOP)
                begin = time.monotonic()
                ends_within(driver, self.random.choice([0.1, 1]) * self.random.random() * self.longest_stop)
                send(victim, signal.SIGCONT)
                self.stopped[victim] = max(self.stopped.get(victim, 0), time.monotonic() - begin)
            self.look()
        return driver.returncode == -signal.SIGKILL


class LivesOfWorkers:
    """What was durable before each worker of a job began: that it must not ask for."""

    def __init__(self, job):
        self.job = job
        self.before = {}  # by the name of what it was asked
        self.durable = set()

    def look(self):
        durable = {record for record, _ in self.job.durable()}  # first: it may be of those that are new
        for file in self.job.folder.glob("asked-*-*"):
            self.before.setdefault(file.name, self.durable)
        self.durable = self.durable | durable

    def check(self):
        """Returns how many rows were asked for more than once."""
        self.look()
        asked = 0
        for name, durable in self.before.items():
            if int(name.split("-")[2]) in self.job.taken_for_dead:
                durable = set()
            records = asked_in(self.job.folder / name)
            asked += len(records)
            assert not records & durable, f"{name}: {records & durable} were durable and are computed again"
        return asked - len(set().union(*self.job.asked))


def rows_without_attempts(output):
    return re.sub(r"@\d+@", "@0@", "".join(path.read_text() for path in sorted(output.glob("part-*"))))


def digest_of(output):
    verify = [MILLSTREAM, "verify", output, "--deep", "--digest"]
    verified = subprocess.run(verify, capture_output=True, text=True, timeout=120)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    return verified.stdout.splitlines()[-1]


def test_workers_and_drivers_that_are_killed_or_stopped_cost_no_row(folder):
    undisturbed = KilledJob(folder / "undisturbed")
    undisturbed.names_attempts = False
    undisturbed.run_to_end()
    rows, digest = rows_without_attempts(undisturbed.output), digest_of(undisturbed.output)
    clock = Clock(300 // JOBS_AT_ONCE)
    lock = threading.Lock()
    has_failed = threading.Event()
    total = {"kills and stops": 0, "jobs": 0, "again": 0}

    def work(number):
        random = choices("workers", number)
        done = jobs = 0
        while clock.goes_on(done) and not has_failed.is_set():
            job = KilledJob(folder / f"job-{number}-{jobs}")
            job.names_attempts = jobs % 2 == 0
            lives = LivesOfWorkers(job)
            disturbed = Disturbed(random, 2.5 * SILENCE_MS / 1000, lives.look)
            drivers = []
            while True:
                workers = random.randrange(1, 4)
                driver = job.start(row_ms=random.choice([2, 10, 30]), workers=workers, silence_ms=SILENCE_MS)
                drivers.append(driver)
                was_killed = disturbed.run(driver, pause=0.2)
                long = SILENCE_MS / 1000 / 2
                job.taken_for_dead |= {pid for pid, seconds in disturbed.stopped.items() if seconds > long}
                if not was_killed:
                    break
                if random.random() < 0.5:  # else another begins while its workers live on
                    driver.communicate(timeout=60)
                job.look()
            for driver in drivers:
                _, err = driver.communicate(timeout=60)  # its workers have ended as well
                assert driver.returncode == (0 if driver is drivers[-1] else -signal.SIGKILL), err
                assert "crash" not in err, err
            job.look()
            job.check_whole()
            again = lives.check()
            assert rows_without_attempts(job.output) == rows
            assert job.names_attempts or digest_of(job.output) == digest
            shutil.rmtree(job.folder)
            jobs += 1
            done += sum(disturbed.counts.values())
            with lock:
                total["jobs"] += 1
                total["again"] += again
                for what, count in disturbed.counts.items():
                    total[what] = total.get(what, 0) + count
                    total["kills and stops"] += count

    def work_to_the_first_failure(number):
        try:
            work(number)
        except BaseException:
            has_failed.set()
            raise

    with concurrent.futures.ThreadPoolExecutor(JOBS_AT_ONCE) as pool:
        list(pool.map(work_to_the_first_failure, range(JOBS_AT_ONCE)))
    report("workers", **total, wrong=0)


def test_the_real_model_gives_the_same_answers_whatever_is_killed(millstream, tmp_path):
    rows = [f'{{"text": "row {row} of the {row % 7}th week"}}\n' for row in range(64)]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    job = tmp_path / "job.yaml"
    job.write_text(
        "models: {small: {path: smollm2-135m-instruct}}\n"
        "input: {path: rows.jsonl}\nsplit_rows: 12\noutput: {path: out}\n"
        "steps: [{generate: {model: small, raw_prompt: '{{ text }}', as: answer, max_tokens: 6}}]\n"
    )
    millstream("run", job, "--output", tmp_path / "one")
    digest = digest_of(tmp_path / "one")
    clock = Clock(20)
    random = choices("real model")
    disturbed = Disturbed(random, longest_stop=2)
    jobs = 0
    while clock.goes_on(sum(disturbed.counts.values())):
        output = tmp_path / f"out-{jobs}"
        command = [MILLSTREAM, "run", job, "--output", output, "--workers", "2"]
        was_killed = True
        while was_killed:
            driver = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
            was_killed = disturbed.run(driver, pause=1)
            _, err = driver.communicate(timeout=60)
            assert driver.returncode == (-signal.SIGKILL if was_killed else 0), err
        assert digest_of(output) == digest
        jobs += 1
    told = {"kills and stops": sum(disturbed.counts.values()), **disturbed.counts}
    report("workers, real model", jobs=jobs, **told, wrong=0)
