# SPDX-License-Identifier: Apache-2.0
"""The files of `millstream batch`: failed lines apart, what is not the job's own, retries and kills."""

import json
import shutil
import subprocess
import threading

import pytest
from batch_lines import MODEL, chat, check_line, served, write
from conftest import ROOT, read_rows
from openai_stub import Server

BINARY = ROOT / "build/release/bin/millstream"


def test_failed_lines_are_retried_into_their_places(batch, millstream, tmp_path):
    is_mended = threading.Event()

    def script(body):
        number = int(body["messages"][0]["content"])
        if number % 3 == 0 and not is_mended.is_set():
            return 400, {}, b'{"error": {"message": "not now"}}'
        return None

    sent = [chat(str(number), str(number)) for number in range(20)]
    files = [tmp_path / "out.jsonl", tmp_path / "failed.jsonl"]
    with Server(script=script) as server:
        batch(sent, *served(server), "--errors", files[1], "--set", "split_rows=4", model="m/1")
        assert [line["custom_id"] for line in read_rows(files[1])] == [str(n) for n in range(0, 20, 3)]
        assert "7 x bad_request" in millstream("status", files[0]).stdout.replace("  ", "")
        failed = [json.loads(line) for line in millstream("errors", files[0]).stdout.splitlines()]
        assert [row["_error"]["code"] for row in failed] == ["bad_request"] * 7
        unchanged = {line["custom_id"]: line for line in read_rows(files[0])}
        is_mended.set()
        millstream("retry", files[0], "--where", "bad_request")
    assert files[1].read_text() == ""
    after = read_rows(files[0])
    assert [line["custom_id"] for line in after] == [line["custom_id"] for line in sent]
    assert all(line == unchanged.get(line["custom_id"], line) for line in after)
    assert "20 ok, 0 error" in millstream("verify", files[0], "--deep").stdout


def test_verify_looks_at_both_files(batch, millstream, tmp_path):
    files = [tmp_path / "out.jsonl", tmp_path / "failed.jsonl"]
    sent = [chat("a"), chat("b", stream=True), chat("c"), chat("d", stream=True)]
    with Server() as server:
        arguments = [*served(server), "--errors", files[1]]
        batch(sent, *arguments, model="m/1")
        assert "4 rows: 2 ok, 2 error" in millstream("verify", files[0]).stdout
        for file in files:
            whole = file.read_text()
            for damaged in (whole.splitlines(True)[0], whole * 2, "".join(reversed(whole.splitlines(True))), "{}\n"):
                file.write_text(damaged)
                assert file.name in millstream("verify", files[0], exit_code=None).stderr
            file.unlink()
            millstream("verify", files[0], exit_code=4)
            batch(sent, *arguments, model="m/1")  # writes them anew
            assert file.read_text() == whole
        # --restart moves both aside, under names by which they are still one.
        batch(sent[:3], *arguments, "--restart", model="m/1")
    assert "3 rows: 2 ok, 1 error" in millstream("verify", files[0]).stdout
    assert "4 rows: 2 ok, 2 error" in millstream("verify", tmp_path / "out.old-1.jsonl").stdout
    (tmp_path / "failed.old-1.jsonl").write_text("")
    millstream("verify", tmp_path / "out.old-1.jsonl", exit_code=4)


def test_a_file_that_is_no_output_is_not_overwritten(batch, millstream, tmp_path):
    (tmp_path / "failed.jsonl").write_text("mine\n")
    write(tmp_path / "in.jsonl", [chat("a")])
    command = ["batch", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--model", MODEL]
    assert "failed.jsonl exists" in millstream(*command, "--errors", tmp_path / "failed.jsonl", exit_code=4).stderr
    millstream(*command, "--errors", tmp_path / "out.jsonl", exit_code=1)
    assert (tmp_path / "failed.jsonl").read_text() == "mine\n" and not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "errors",
    ["link/out.jsonl", "out.jsonl/failed.jsonl", "out.jsonl.millstream/failed.jsonl", "deep/x.jsonl"],
)
def test_failed_lines_stand_apart_from_the_answers(millstream, tmp_path, errors):
    sent = write(tmp_path / "in.jsonl", [chat("a"), chat("b", stream=True)])
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "out.jsonl.millstream").mkdir()
    (tmp_path / "deep").symlink_to(tmp_path / "out.jsonl.millstream")
    before = sorted(tmp_path.iterdir())
    command = ["batch", sent, "-o", tmp_path / "out.jsonl", "--model", MODEL, "--errors", tmp_path / errors]
    said = millstream(*command, exit_code=1).stderr
    assert "output.errors" in said and errors in said
    assert sorted(tmp_path.iterdir()) == before


def test_a_restart_moves_nothing_but_the_jobs_own(batch, millstream, tmp_path):
    def held(*names):
        return {name: (tmp_path / name).read_bytes() for name in names}

    sent = [chat("a"), chat("b", stream=True)]
    inputs = write(tmp_path / "in.jsonl", sent)
    (tmp_path / "link.jsonl").symlink_to(inputs)
    (tmp_path / "notes.jsonl").write_text("mine\n")
    files = held("in.jsonl", "notes.jsonl")
    with Server() as server:
        command = ["batch", inputs, "--model", "m/1", *served(server), "--restart"]
        for of_job in (False, True):  # once with a state beside out.jsonl
            for name in ("in.jsonl", "link.jsonl"):
                said = millstream(*command, "-o", tmp_path / "out.jsonl", "--errors", tmp_path / name, exit_code=1)
                assert f"{name} is the input " in said.stderr
                millstream(*command, "-o", tmp_path / name, exit_code=1)
            arguments = ["-o", tmp_path / "out.jsonl", "--errors", tmp_path / "notes.jsonl"]
            assert "notes.jsonl" in millstream(*command, *arguments, exit_code=4).stderr
            assert "notes.jsonl exists" in millstream(*command, "-o", tmp_path / "notes.jsonl", exit_code=4).stderr
            assert held(*files) == files and not list(tmp_path.glob("*old*"))
            if not of_job:
                batch(sent, *served(server), "--errors", tmp_path / "failed.jsonl", model="m/1")
                files |= held("out.jsonl", "failed.jsonl")
        # What stands in the place of a file that was moved aside, or never was there, is no rest of that move.
        (tmp_path / "failed.jsonl").unlink()
        arguments = ["-o", tmp_path / "out.jsonl", "--errors", tmp_path / "failed.jsonl"]
        command[1] = tmp_path / "gone.jsonl"
        millstream(*command, *arguments, exit_code=1)
        assert (tmp_path / "out.old-1.jsonl").exists() and not (tmp_path / "out.jsonl.millstream").exists()
        (tmp_path / "failed.jsonl").write_text("mine\n")
        command[1] = inputs
        assert "failed.jsonl exists" in millstream(*command[:-1], *arguments, exit_code=4).stderr
        assert (tmp_path / "failed.jsonl").read_text() == "mine\n"
        assert not (tmp_path / "failed.old-1.jsonl").exists()


def test_a_folder_that_is_no_output_is_not_moved_aside(millstream, tmp_path):
    (tmp_path / "rows.txt").write_text("a\n")
    (tmp_path / "job.yaml").write_text("input: rows.txt\nsteps: [{set: {x: 1}}]\noutput: out\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    assert "no output of Millstream" in millstream("run", tmp_path / "job.yaml", "--restart", exit_code=4).stderr
    assert (tmp_path / "out/notes.txt").read_text() == "mine" and not (tmp_path / "out.old-1").exists()


def test_a_second_job_at_work_does_not_replace_the_failed_lines_of_the_first(batch, millstream, tmp_path):
    is_first_done = threading.Event()

    def script(body):
        if body["messages"][0]["content"] == "slow":
            is_first_done.wait(60)

    failed = tmp_path / "failed.jsonl"
    second = write(tmp_path / "second.jsonl", [chat("of the second", stream=True), chat("b", "slow")])
    with Server(script=script) as server:
        arguments = [*served(server), "--errors", failed]
        command = ["batch", second, "-o", tmp_path / "answers.jsonl", "--model", "m/1", *arguments]
        process = subprocess.Popen([BINARY, *map(str, command)], stderr=subprocess.PIPE, text=True)
        while not server.bodies:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
        batch([chat("of the first", stream=True), chat("a")], *arguments, model="m/1")
        is_first_done.set()
        assert "failed.jsonl is not what this job wrote" in process.communicate(timeout=60)[1]
        assert process.returncode == 4
        assert [line["custom_id"] for line in read_rows(failed)] == ["of the first"]
        assert "2 rows: 1 ok, 1 error" in millstream("verify", tmp_path / "out.jsonl", "--deep").stdout
        millstream(*command, exit_code=4)
        failed.rename(tmp_path / "theirs.jsonl")
        asked = len(server.bodies)
        millstream(*command)
        assert len(server.bodies) == asked
    assert [line["custom_id"] for line in read_rows(failed)] == ["of the second"]
    assert "2 rows: 1 ok, 1 error" in millstream("verify", tmp_path / "answers.jsonl", "--deep").stdout
    # Ids tell the lines of two jobs apart, of which all else may be the same.
    shutil.copy(tmp_path / "theirs.jsonl", failed)
    said = millstream("verify", tmp_path / "answers.jsonl", exit_code=None)
    assert (
        said.returncode in (1, 4) and "failed.jsonl: row 1: is no batch line: its id is none of this job" in said.stderr
    )


@pytest.mark.parametrize("name", ["out.jsonl", "failed.jsonl"])
def test_a_file_that_was_put_there_while_a_job_was_stopped_is_left_as_it_is(millstream, tmp_path, name):
    sent = write(tmp_path / "in.jsonl", [chat("a"), chat("b", stream=True)])
    command = [BINARY, "batch", sent, "-o", tmp_path / "out.jsonl", "--errors", tmp_path / "failed.jsonl"]
    is_killed = threading.Event()
    with Server(script=lambda body: is_killed.wait(60) and None) as server:
        command += ["--model", "m/1", *served(server)]
        process = subprocess.Popen(command)
        while not server.bodies:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
        process.kill()
        process.wait()
        is_killed.set()
        notes = tmp_path / name
        notes.write_text("mine\n")
        files = sorted(tmp_path.iterdir())
        said = millstream(*command[1:], exit_code=4).stderr
        assert f"{name} is not what this job wrote there, so it is left as it is: move it away" in said
        assert sorted(tmp_path.iterdir()) == files and notes.read_text() == "mine\n"
        notes.unlink()
        millstream(*command[1:])
        # Nor once the job is complete, which had nothing to do.
        whole = notes.read_text()
        notes.write_text("mine\n")
        millstream(*command[1:], exit_code=4)
        millstream("retry", tmp_path / "out.jsonl", "--reseed", exit_code=4)
        assert notes.read_text() == "mine\n"
        notes.write_text(whole)
        millstream(*command[1:])


def killed_and_not(tmp_path, command, start, kill):
    """Lets one job be killed as soon as it is planned; then one copy of it runs to its end undisturbed, and another is
    killed in the midst first. Returns the folders of both. `start(folder)` starts the command, `kill(process)` kills it
    in time."""
    first, second = tmp_path / "killed", tmp_path / "undisturbed"
    kill(start(first), early=True)
    assert list((first / "out.jsonl.millstream").glob("plan-*")) and not (first / "out.jsonl").exists()
    shutil.copytree(first, second)
    kill(start(first), early=False)
    assert not (first / "out.jsonl").exists()
    for folder in (first, second):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return first, second


@pytest.mark.parametrize("errors", [[], ["--errors", "failed.jsonl"]], ids=["one file", "errors apart"])
def test_a_killed_run_over_http_ends_in_the_same_bytes(tmp_path, errors):
    sent = [chat(f"c{number}", f"row {number}", stream=number % 7 == 0) for number in range(300)]
    victim = {}

    def script(body):
        victim["left"] -= 1
        if victim["left"] == 0:
            victim["process"].kill()
        return None

    def kill(process, early):
        victim.update(process=process, left=1 if early else 120)
        victim["ready"].set()
        assert process.wait(120) == -9
        victim["left"] = 10**9

    def gate(body):
        victim["ready"].wait(60)
        return script(body)

    with Server(script=gate) as server:
        command = [BINARY, "batch", "in.jsonl", "-o", "out.jsonl", "--model", "m/1", *served(server), *errors]
        command += ["--set", "split_rows=32", "--max-in-flight", "4"]

        def start(folder):
            folder.mkdir(exist_ok=True)
            if not (folder / "in.jsonl").exists():
                write(folder / "in.jsonl", sent)
            victim["ready"] = threading.Event()
            return subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)

        killed, undisturbed = killed_and_not(tmp_path, command, start, kill)
        asked = len(server.bodies)
    for name in ["out.jsonl", *errors[1:]]:
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()
        assert (killed / name).stat().st_size > 0
    lines = [line for name in ["out.jsonl", *errors[1:]] for line in read_rows(killed / name)]
    assert sorted(line["custom_id"] for line in lines) == sorted(line["custom_id"] for line in sent)
    answered = sum(not line["body"]["stream"] for line in sent)
    assert asked < 2 * answered + 20  # none that was answered is asked again, but for those of the kills


def test_a_killed_run_of_the_native_engine_ends_in_the_same_bytes(tmp_path):
    sent = [chat(f"c{i}", f"Count to {i}", max_tokens=12, temperature=1, n=1 + i % 2) for i in range(48)]
    command = [BINARY, "batch", "in.jsonl", "-o", "out.jsonl", "--model", MODEL, "--set", "split_rows=8"]

    def start(folder):
        folder.mkdir(exist_ok=True)
        if not (folder / "in.jsonl").exists():
            write(folder / "in.jsonl", sent)
        return subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)

    def kill(process, early):
        state = tmp_path / "killed/out.jsonl.millstream"
        while not list(state.glob("journal-*" if early else "parts/part-*")):
            with pytest.raises(subprocess.TimeoutExpired):  # it has not ended
                process.wait(0.005)
        process.kill()
        assert process.wait(120) == -9

    killed, undisturbed = killed_and_not(tmp_path, command, start, kill)
    assert (killed / "out.jsonl").read_bytes() == (undisturbed / "out.jsonl").read_bytes()
    lines = read_rows(killed / "out.jsonl")
    assert [line["custom_id"] for line in lines] == [line["custom_id"] for line in sent]
    assert {check_line(line) for line in lines} == {"answered"}
