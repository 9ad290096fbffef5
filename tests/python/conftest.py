# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the clone, and a way to run the release binary."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # datasets reads local folders only


@pytest.fixture(scope="session")
def millstream():
    """Runs `millstream ARGUMENTS` and returns the finished process; checks the exit code unless told otherwise."""

    def run(*arguments, exit_code=0):
        command = [ROOT / "build/release/bin/millstream", *map(str, arguments)]
        process = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert process.returncode == exit_code, process.stderr
        return process

    return run
