# SPDX-License-Identifier: Apache-2.0
"""Runs a program, with the peak memory of its process tree, and prints a benchmark's results."""

import json
import os
import pathlib
import platform
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MILLSTREAM = ROOT / "build/release/bin/millstream"
SAMPLE_SECONDS = 0.02  # at least


def tree(pid):
    """The process and its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            parents[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
    tree, added = {pid}, True
    while added:
        added = {child for child, parent in parents.items() if parent in tree} - tree
        tree |= added
    return tree


def _memory(pid):
    """Bytes that a process holds, memory shared with others divided among them; anonymous and shared memory alone, no
    pages of files, which the system can take back at will."""
    fields = {}
    try:
        for line in pathlib.Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split(":")
            fields[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError):
        return 0
    return fields["Pss_Anon"] + fields["Pss_Shmem"]


def run(command, cwd, env=None):
    """Runs a command. Returns its wall seconds, peak memory in bytes and standard output."""
    started = time.monotonic()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak, ended = 0, threading.Event()

    def sample():
        nonlocal peak
        pause = 0.0
        while not ended.wait(pause):
            begun = time.monotonic()
            peak = max(peak, sum(_memory(pid) for pid in tree(process.pid)))
            pause = max(SAMPLE_SECONDS, 30 * (time.monotonic() - begun))  # the sampler must not cost what it measures

    sampler = threading.Thread(target=sample)
    sampler.start()
    output, errors = process.communicate()
    seconds = time.monotonic() - started
    ended.set()
    sampler.join()
    if process.returncode != 0:
        raise RuntimeError(f"{command} failed with {process.returncode}:\n{errors[-4000:]}")
    return seconds, peak, output


def worker(script, name, *arguments):
    """Runs `script --worker NAME ARGUMENTS` as a process of its own. Returns the JSON of its last line and its peak
    memory."""
    command = [sys.executable, script, "--worker", name, *arguments]
    _, peak, output = run(command, cwd=ROOT)
    return json.loads(output.splitlines()[-1]), peak


def machine():
    """What the figures were measured on."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory / 2**30), "system": platform.platform()}


def report(name, columns, rows, json_path, **more):
    """Prints rows (mappings) as a Markdown table, and all as JSON to `json_path` or, without one, below it."""
    print(f"| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(str(row[column]) for column in columns)} |")
    result = {"benchmark": name, "machine": machine(), "results": rows} | more
    if json_path:
        pathlib.Path(json_path).write_text(json.dumps(result, indent=2) + "\n")
    else:
        print(json.dumps(result))
