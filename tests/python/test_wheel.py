# SPDX-License-Identifier: Apache-2.0
"""The wheel that scripts/wheel makes, installed where nothing of the clone is at hand."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, make_wheel, read_rows

GLIBC = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2"}
VERSION = re.search(r"project\(millstream VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]


def run(folder, *command, **variables):
    """What a command prints, in an environment that has nothing of the clone."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8", **variables}
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, env=environment)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def bin_folder(wheel, tmp_path_factory):
    """The bin/ of an environment that has the wheel installed and no other package."""
    folder = tmp_path_factory.mktemp("installed")
    run(folder, "/usr/bin/python3", "-m", "venv", "venv")
    run(folder, "venv/bin/python", "-m", "pip", "install", "--no-index", wheel)
    return folder / "venv/bin"


@pytest.fixture(scope="module")
def package(bin_folder):
    return next(bin_folder.parent.glob("lib/python3*/site-packages/millstream"))


def test_command_and_module_run_the_program(bin_folder, tmp_path):
    said = f"millstream {VERSION}\n"
    assert run(tmp_path, bin_folder / "millstream", "--version") == said
    assert run(tmp_path, bin_folder / "python", "-m", "millstream", "--version") == said
    ask = "import importlib.metadata as m, millstream; print(m.version('millstream'), millstream.__version__)"
    assert run(tmp_path, bin_folder / "python", "-c", ask) == f"{VERSION} {VERSION}\n"


def test_installed_program_runs_a_job(bin_folder, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"n": 3}\n')
    (tmp_path / "job.yaml").write_text("input: rows.jsonl\nsteps: [{set: {twice: '{{ n ~ n }}'}}]\noutput: out\n")
    run(tmp_path, bin_folder / "millstream", "run", "job.yaml")
    assert [row["twice"] for row in read_rows(tmp_path / "out")] == ["11", "22", "33"]


def test_libraries_come_from_the_package_whatever_the_environment_says(package, tmp_path):
    # A library path leads to others of the same names; they must not be taken.
    others = {"LD_LIBRARY_PATH": "/usr/lib/x86_64-linux-gnu"}
    for file in [package / "bin/millstream", *(package / "lib").iterdir()]:
        for name, path in re.findall(r"^\s*(\S+) => (.*?)(?: \(0x\w+\))?$", run(tmp_path, "ldd", file, **others), re.M):
            if name not in GLIBC:
                assert pathlib.Path(path).resolve().parent == package / "lib", f"{file.name} takes {name} from {path}"


def test_every_binary_is_stripped(package, tmp_path):
    for file in [package / "bin/millstream", *(package / "lib").iterdir()]:
        assert ".symtab" not in run(tmp_path, "readelf", "--section-headers", "--wide", file), file.name


def test_licence_of_every_library_is_there(package):
    folder = next(package.parent.glob("millstream-*.dist-info")) / "licenses"
    bundled = (folder / "BUNDLED").read_text()
    for library in (package / "lib").iterdir():
        debian_package = re.search(rf"^{re.escape(library.name)}: ([^:\s]+)", bundled, re.M)[1]
        if not debian_package.startswith("pyarrow-"):
            assert (folder / "debian" / debian_package).is_file(), library.name
    assert "Apache Arrow" in (folder / "pyarrow/NOTICE.txt").read_text()
    crates = re.findall(
        r'^name = "(.*)"\nversion = "(.*)"\nsource', (ROOT / "src/text/rust/Cargo.lock").read_text(), re.M
    )
    told = (folder / "rust-crates.txt").read_text()
    for name in ("tokenizers", "minijinja", "llguidance", "onig_sys"):
        assert f"{name} {dict(crates)[name]} (" in told


def test_same_input_gives_the_same_wheel(wheel):
    before = wheel.read_bytes()
    assert make_wheel().read_bytes() == before


def test_program_is_told_which_python_started_it(tmp_path):
    shutil.copytree(ROOT / "python/millstream", tmp_path / "millstream", ignore=shutil.ignore_patterns("__pycache__"))
    program = tmp_path / "millstream/bin/millstream"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$MILLSTREAM_PYTHON" "$@"\n')
    program.chmod(0o755)
    module = [sys.executable, "-m", "millstream", "a b", "--c"]
    assert run(tmp_path, *module).splitlines() == [sys.executable, "a b", "--c"]
    assert run(tmp_path, *module, MILLSTREAM_PYTHON="/mine").splitlines() == ["/mine", "a b", "--c"]
