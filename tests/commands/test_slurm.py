"""SLURM without SLURM: its variables against the processes, a job's run directory, what a restart goes on from."""

import os
import signal
from pathlib import Path

import pytest
from jsonargparse import Namespace

from taggant_lightning.cli import main
from taggant_lightning.commands import requeue, slurm
from taggant_lightning.commands.run_directory import REQUEUED, RUN_DIRECTORY, default_directory, resume_from
from taggant_lightning.errors import TaggantError
from tests.commands.test_cli import base


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)


def job(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_NAME", "fit")
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


def trainer(devices: object = 8, num_nodes: int = 1, plugins: object = None) -> Namespace:
    return Namespace(devices=devices, num_nodes=num_nodes, accelerator="cpu", plugins=plugins)


@pytest.mark.parametrize(
    ("variables", "devices", "num_nodes"),
    [
        ({}, 8, 1),
        ({"NTASKS": 8}, 8, 1),
        ({"NTASKS": 8, "NTASKS_PER_NODE": 8, "NNODES": 1}, "0,1,2,3,4,5,6,7", 1),
        ({"NTASKS": 16, "NNODES": 2}, 8, 2),
        ({"NTASKS": 1, "NNODES": 1}, "auto", 1),
        ({"NTASKS": 2, "NNODES": 1}, [0, 1], 1),
        ({"NTASKS": 3, "JOB_NAME": "interactive"}, 8, 1),
        ({"NTASKS": 3, "JOB_NAME": "bash"}, 8, 1),
    ],
)
def test_what_agrees(variables: dict[str, object], devices: object, num_nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if variables:
        job(monkeypatch, **variables)
    slurm.check_tasks(trainer(devices, num_nodes))


@pytest.mark.parametrize(
    ("variables", "devices", "num_nodes", "sentence"),
    [
        ({"NTASKS": 1}, 8, 1, "devices=8, and SLURM gave SLURM_NTASKS=1 (nodes: 1), one task a device is needed; write "
         "--trainer.devices 1, or #SBATCH --ntasks-per-node=8"),
        ({"NTASKS": 8, "NTASKS_PER_NODE": 8}, 4, 1, "devices=4, and SLURM gave SLURM_NTASKS_PER_NODE=8, one task a device is "
         "needed; write --trainer.devices 8, or #SBATCH --ntasks-per-node=4"),
        ({"NTASKS": 16, "NNODES": 2}, 8, 1, "num_nodes=1, and SLURM gave SLURM_NNODES=2; write --trainer.num_nodes 2, or "
         "#SBATCH --nodes=1"),
        ({"NTASKS": 3, "NNODES": 2}, 8, 2, "devices=8, and SLURM gave SLURM_NTASKS=3 (nodes: 2), one task a device is needed;"
         " write #SBATCH --ntasks-per-node=8"),
        ({"NTASKS": 12, "NTASKS_PER_NODE": 8, "NNODES": 2}, 8, 2, "devices=8 on num_nodes=2 make 16 processes, and SLURM "
         "started SLURM_NTASKS=12 tasks; write #SBATCH --ntasks-per-node=8 and no --ntasks"),
    ],
)  # fmt: skip
def test_what_does_not_agree(
    variables: dict[str, object], devices: object, num_nodes: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(monkeypatch, **variables)
    with pytest.raises(TaggantError) as error:
        slurm.check_tasks(trainer(devices, num_nodes))
    assert str(error.value) == sentence
    slurm.check_tasks(trainer(devices, num_nodes, plugins="LightningEnvironment"))


def test_the_command_refuses_before_anything_is_made(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job(monkeypatch, NTASKS=4, PROCID=0)
    assert main(["fit", *base(tiny_npz, tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error == (
        "taggant fit: devices=1, and SLURM gave SLURM_NTASKS=4 (nodes: 1), one task a device is needed; write "
        "--trainer.devices 4, or #SBATCH --ntasks-per-node=1\n"
    )
    assert not (tmp_path / "run").exists()


def test_run_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_directory("fit").endswith("-fit")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r2")
    assert default_directory("fit") == "runs/s1-r2-fit"
    job(monkeypatch, NTASKS=1)
    assert default_directory("fit") == "runs/slurm-12-fit"
    job(monkeypatch, ARRAY_JOB_ID=7, ARRAY_TASK_ID=3)
    assert default_directory("test") == "runs/slurm-7_3-test"
    monkeypatch.setenv(RUN_DIRECTORY, "here")
    assert default_directory("fit") == "here"


def test_what_a_restarted_job_goes_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requeued, last = tmp_path / REQUEUED, tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    assert resume_from("last", tmp_path) == "last"  # no SLURM
    job(monkeypatch, NTASKS=1)
    assert resume_from(None, tmp_path) is None
    last.write_bytes(b"")
    os.utime(last, (1, 1))
    assert resume_from(None, tmp_path) is None  # another job's run: begin anew, as without SLURM
    requeued.write_bytes(b"")
    assert resume_from(None, tmp_path) == resume_from("last", tmp_path) == str(requeued)
    assert resume_from("mine.ckpt", tmp_path) == "mine.ckpt"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resume_from("mine.ckpt", tmp_path) == str(requeued)
    os.utime(requeued, (0, 0))
    assert resume_from(None, tmp_path) == str(last)


def test_requeue_is_asked_for_once_and_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job(monkeypatch, NTASKS=2)
    monkeypatch.setenv("PATH", str(tmp_path))
    requeue.requeue_once(tmp_path)
    assert "job 12 NOT queued again (scontrol ended with 127); sbatch the same script" in capsys.readouterr().out
    requeue.requeue_once(tmp_path)
    assert capsys.readouterr().out == ""


def test_one_task_gives_the_signal_back(tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job(monkeypatch, NTASKS=1, PROCID=0, LOCALID=0, NODEID=0, NODELIST="localhost")
    before = signal.getsignal(signal.SIGUSR1)
    assert main(["fit", *base(tiny_npz, tmp_path / "run")]) == 0
    assert signal.getsignal(signal.SIGUSR1) == before
    assert not list((tmp_path / "run").glob("hpc*"))
