# SPDX-License-Identifier: Apache-2.0
"""Suite 18 of docs/reliability.md: the tests of crashes find every bug that is seeded into the protocol. Each mutant is
one source compiled anew and linked before the archives, whose member it replaces."""

import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import time

import pytest
from conftest import ROOT
from mutations import CAUGHT, REDUNDANT

BUILD = ROOT / "build/release"
SECONDS = 3  # of each random part
WORKERS = 2


def compile_command(file, source, target):
    """The real command, for a changed source."""
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        if entry["file"] == str(ROOT / file):
            words = shlex.split(entry["command"])
            break
    if words[0].endswith("ccache"):
        words = words[1:]
    # Quick to compile, and a mutant may leave something unused.
    left_out = {"-Werror", "-D_FORTIFY_SOURCE=2", "-O3", str(ROOT / file)}
    words[words.index("-o") + 1] = str(target)
    return [word for word in words if word not in left_out] + ["-O1", "-w", str(source)]


def link_command(mutant, target):
    commands = subprocess.run(
        ["ninja", "-C", BUILD, "-t", "commands", "ledger_test"], check=True, capture_output=True, text=True
    ).stdout
    line = next(line for line in commands.splitlines() if " -o bin/ledger_test " in line)
    words = shlex.split(line.removeprefix(": && ").split(" && ")[0])
    words[words.index("-o") + 1] = str(target)
    words.insert(next(i for i, word in enumerate(words) if word.endswith(".a")), str(mutant))
    return words


def build_mutant(mutation, folder):
    text = (ROOT / mutation.file).read_text()
    assert text.count(mutation.old) == 1, f"{mutation.name}: its text is {text.count(mutation.old)} times there"
    source = folder / pathlib.Path(mutation.file).name
    source.write_text(text.replace(mutation.old, mutation.new))
    mutant, program = folder / "mutant.o", folder / "ledger_test"
    subprocess.run(compile_command(mutation.file, source, mutant), cwd=BUILD, check=True)
    subprocess.run(link_command(mutant, program), cwd=BUILD, check=True)
    return program


def run_tests(program):
    """What the tests of crashes say of a mutant: the first that fails, and how."""
    environment = {
        **os.environ,
        "MS_TORTURE_SECONDS": str(SECONDS),
        "MS_TORTURE_SEED": "1",
        "LD_LIBRARY_PATH": str(next((ROOT / ".deps/venv/lib").glob("python3*/site-packages/pyarrow"))),
    }
    # Random deaths need no end: a mutant that they do not find in some seconds is not found.
    arguments = ["--gtest_filter=*CrashTest*:-*/1", "--gtest_fail_fast", "--gtest_brief=1"]
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, timeout=400)
    if done.returncode == 0:
        return ""
    wrong = re.search(r"^seed .*|^terminate.*|.*Check failed.*", done.stdout + done.stderr, re.MULTILINE)
    return wrong[0][:160] if wrong else f"exit code {done.returncode}"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the tests say of every mutant, by its name."""
    start = time.monotonic()

    def look(mutation):
        return run_tests(build_mutant(mutation, tmp_path_factory.mktemp("mutant")))

    mutations = CAUGHT + REDUNDANT
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(look, mutations))
    caught = sum(1 for mutation, said in zip(mutations, results, strict=True) if said and not mutation.why_redundant)
    summary = {
        "suite": "mutation",
        "mutants": len(CAUGHT),
        "caught": caught,
        "redundant": len(REDUNDANT),
        "wrong": len(CAUGHT) - caught,
        "seconds": round(time.monotonic() - start),
    }
    for mutation, said in zip(mutations, results, strict=True):
        print(f"{mutation.name}: {said or 'not found'}")
    print("TORTURE", json.dumps(summary))
    return dict(zip((mutation.name for mutation in mutations), results, strict=True))


@pytest.mark.parametrize("mutation", CAUGHT, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_seeded_bug_is_found(found, mutation):
    assert found[mutation.name], f"{mutation.file}: no test of crashes noticed"


@pytest.mark.parametrize("mutation", REDUNDANT, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_second_safety_is_no_more_than_that(found, mutation):
    """If one is found after all, it belongs to CAUGHT."""
    assert not found[mutation.name]
