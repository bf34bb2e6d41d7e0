"""Running a graph: each command once, failures told at the end, nothing lost by a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from taggant_lightning.cli import main
from tests.sweeps.scripts import journal, write_experiment


def sweep(path: Path, *words: str) -> list[str]:
    """Cold: these commands are too small to gain from a warm start, which `start` and test_warm.py have."""
    return ["sweep", str(path), "--runs", str(path.parent.parent / "runs"), "--cold", *words]


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "runs" / "trial-cpu.json").read_text())


def values(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {row["row"]: [repeat["values"] for repeat in row["repeats"]] for row in results(folder)["rows"]}


CHANGE = {"stages": {"second": {"options": {"value": 1}}}}


def test_everything_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None, "b": CHANGE}})
    assert main(sweep(path, "--run", "--jobs", "2")) == 0
    assert sorted(journal(tmp_path)) == ["first-5", "first-6", "second-5", "second-5", "second-6", "second-6"]
    assert values(tmp_path) == {"a": [{"value": 5.0}, {"value": 6.0}], "b": [{"value": 6.0}, {"value": 7.0}]}
    found = results(tmp_path)
    assert (found["experiment"], found["claim"], found["repeats"], found["unfinished"]) == ("trial", 9, 2, [])
    assert found["command"] == f"taggant sweep {path} --run"
    assert found["hardware"]
    said = capsys.readouterr()
    assert "ran=6 found=0 failed=0 skipped=0" in said.out
    assert "sweep=trial done=6 running=0 left=0" in said.err
    before = (tmp_path / "runs" / "trial-cpu.json").read_bytes()
    assert main(sweep(path, "--run")) == 0
    assert "ran=0 found=6" in capsys.readouterr().out
    assert len(journal(tmp_path)) == 6
    assert (tmp_path / "runs" / "trial-cpu.json").read_bytes() == before
    assert main(sweep(path, "--run", "--repeats", "3")) == 0
    assert sorted(journal(tmp_path)[6:]) == ["first-7", "second-7", "second-7"]
    assert (tmp_path / "runs" / "trial-cpu.json").read_bytes() == before


def test_a_failure_is_told_and_the_others_finish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = {"stages": {"first": {"options": {"fail": "yes"}}}}
    path = write_experiment(tmp_path, {"rows": {"bad": failing, "good": None}, "repeats": 1})
    with pytest.raises(SystemExit) as stop:
        main(sweep(path, "--run"))
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "failed (exit 3); needed by bad" in said.err
    assert "something is wrong here" in said.err
    assert "log.txt" in said.err
    assert "ran=2 found=0 failed=1 skipped=1" in said.out
    assert values(tmp_path) == {"bad": [{}], "good": [{"value": 5.0}]}
    assert [name.split("-")[0] for name in results(tmp_path)["unfinished"]] == ["first", "second"]
    with pytest.raises(SystemExit):  # tried again, and only that
        main(sweep(path, "--run"))
    assert journal(tmp_path) == ["first-5", "first-5", "second-5", "first-5"]


def test_print_gives_commands_that_a_shell_can_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None}})
    assert main(sweep(path, "--print")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert not (tmp_path / "runs").exists()
    for line in lines:
        folder = Path(line.split("--out ")[1].split()[0])
        folder.mkdir(parents=True)
        command = line.replace("python ", f"{sys.executable} ", 1)
        subprocess.run(command, shell=True, check=True)
    assert main(sweep(path, "--gather")) == 0
    assert values(tmp_path) == {"a": [{"value": 5.0}, {"value": 6.0}]}
    assert main(sweep(path, "--print")) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("taggant: results=")


def start(path: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "taggant_lightning", *sweep(path, "--run", *words)]
    if "--cold" not in words:
        command.remove("--cold")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(folder: Path, entries: int) -> None:
    deadline = time.monotonic() + 180
    while len(journal(folder)) < entries:
        assert time.monotonic() < deadline, journal(folder)
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(signal.SIGINT, [], marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, [], marks=pytest.mark.slow),
        (signal.SIGTERM, ["--cold"]),
        pytest.param(signal.SIGKILL, ["--cold"], marks=pytest.mark.slow),
    ],
)
def test_interrupted_twice_and_begun_again(number: int, words: list[str], tmp_path: Path) -> None:
    slow = {"stages": {"first": {"options": {"sleep": 0.4}}, "second": {"options": {"sleep": 0.4}}}}
    path = write_experiment(
        tmp_path, {"rows": {"a": slow, "b": {"stages": {**slow["stages"], "second": {"options": {"value": 1}}}}}}
    )
    seen = 0
    for _ in range(2):
        process = start(path, *words)
        wait_for(tmp_path, seen + 2)  # one command has ended, and another runs
        process.send_signal(number)
        _, said = process.communicate(timeout=180)
        assert process.returncode == (-number if number == signal.SIGKILL else 130)
        if number != signal.SIGKILL:
            assert "interrupted; the same command goes on where this one stopped" in said
        seen = len(journal(tmp_path))
    process = start(path, *words)
    process.communicate(timeout=180)
    assert process.returncode == 0
    assert values(tmp_path) == {"a": [{"value": 5.0}, {"value": 6.0}], "b": [{"value": 6.0}, {"value": 7.0}]}
    # Six commands; each interruption cost the one that ran, and nothing that was finished ran again.
    assert len(journal(tmp_path)) <= 8


def test_a_command_that_a_killed_sweep_left_behind_is_waited_for(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": {"stages": {"first": {"options": {"sleep": 1.5}}}}}, "repeats": 1})
    process = start(path)
    wait_for(tmp_path, 1)
    process.kill()
    process.communicate()
    (folder,) = (tmp_path / "runs").glob("first-*")
    assert not (folder / "metrics.json").exists()
    assert main(sweep(path, "--run")) == 0
    # The orphan ended before the second attempt began: otherwise both would have slept side by side.
    assert journal(tmp_path) == ["first-5", "first-5", "second-5"]
    begun = (folder / "node.json").stat().st_mtime
    assert (folder / "finished.json").stat().st_mtime - begun >= 1.4


def test_what_an_attempt_left_is_cleared(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None}, "repeats": 1})
    assert main(sweep(path, "--run")) == 0
    (folder,) = (tmp_path / "runs").glob("first-*")
    (folder / "finished.json").unlink()
    (folder / "left").mkdir()
    (folder / "left" / "over").write_text("")
    assert main(sweep(path, "--run")) == 0
    assert not (folder / "left").exists()
    assert journal(tmp_path) == ["first-5", "second-5", "first-5"]


@pytest.mark.slow
def test_batch_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None, "b": CHANGE}})
    assert main(sweep(path, "--slurm", str(tmp_path / "jobs"))) == 0
    assert "6 commands; submit them with" in capsys.readouterr().out
    files = {p.name: p.read_text() for p in (tmp_path / "jobs").iterdir()}
    assert sorted(files) == ["level-0.sbatch", "level-0.txt", "level-1.sbatch", "level-1.txt", "results.sbatch", "submit.sh"]
    assert "#SBATCH --array=1-2\n" in files["level-0.sbatch"]
    assert "#SBATCH --array=1-4\n" in files["level-1.sbatch"]
    assert "#SBATCH --time=1:00:00\n" in files["level-1.sbatch"]
    for name in files:
        if not name.endswith(".txt"):
            subprocess.run(["bash", "-n", str(tmp_path / "jobs" / name)], check=True)

    # A stand-in for sbatch that runs an array at once, element by element, and notes what depends on what.
    stand_in = tmp_path / "bin" / "sbatch"
    stand_in.parent.mkdir()
    stand_in.write_text(
        "#!/usr/bin/env bash\n"
        f'echo "$*" >> {tmp_path}/submitted\n'
        'script="${@: -1}"; last=$(sed -n "s/^#SBATCH --array=1-//p" "$script")\n'
        'for i in $(seq 1 "${last:-1}"); do SLURM_ARRAY_TASK_ID=$i bash "$script" >&2; done\n'
        f"wc -l < {tmp_path}/submitted\n"
    )
    stand_in.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    subprocess.run(["bash", str(tmp_path / "jobs" / "submit.sh")], check=True, env=environment)
    submitted = (tmp_path / "submitted").read_text().splitlines()
    assert [line.split()[-1].rsplit("/", 1)[-1] for line in submitted] == ["level-0.sbatch", "level-1.sbatch", "results.sbatch"]
    assert "--dependency=afterany:1" in submitted[1]
    assert "--dependency=afterany:2" in submitted[2]
    assert len(journal(tmp_path)) == 6
    assert values(tmp_path)["b"] == [{"value": 6.0}, {"value": 7.0}]

    assert main(sweep(path, "--slurm", str(tmp_path / "jobs"))) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err


def test_one_node_needs_its_parents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": {"stages": {"first": {"options": {"fail": "yes"}}}}}, "repeats": 1})
    assert main(sweep(path, "--slurm", str(tmp_path / "jobs"))) == 0
    first, second = ((tmp_path / "jobs" / f"level-{n}.txt").read_text().strip() for n in (0, 1))
    assert main(sweep(path, "--node", second)) == 2
    assert f"second-{second} needs first-{first}, which is not finished; run that first" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(sweep(path, "--node", first))
    assert stop.value.code == 1
    assert "something is wrong here" in capsys.readouterr().err
    assert main(sweep(path, "--node", "0123456789ab")) == 2
    assert "names 0 commands of the experiment" in capsys.readouterr().err


def test_wrong_words_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None}})
    assert main(sweep(path, "--run", "--jobs", "0")) == 2
    assert "jobs=0 must be at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["sweep", str(path)])
    assert stop.value.code == 2


def test_who_waits_for_another_sweep_can_be_interrupted(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": {"stages": {"first": {"options": {"sleep": 30}}}}}, "repeats": 1})
    holder = start(path)
    wait_for(tmp_path, 1)
    waiting = start(path)
    (folder,) = (tmp_path / "runs").glob("first-*")
    time.sleep(3)  # it has come as far as the lock; earlier is interrupted as well
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=60)
    assert waiting.returncode != 0
    holder.send_signal(signal.SIGINT)
    holder.communicate(timeout=60)
    assert not (folder / "finished.json").exists()
    assert journal(tmp_path) == ["first-5"]
