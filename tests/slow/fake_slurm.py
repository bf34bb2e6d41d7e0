"""A SLURM of one node for tests: `srun` that starts tasks, `scontrol` that notes what it was asked for."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


class FakeSlurm:
    """Starts the tasks of a job and signals them.

    Args:
        root: Folder of the job: the working directory, the tasks' output and the note of `scontrol`.
        number: The job's number.
    """

    def __init__(self, root: Path, number: int = 4711) -> None:
        self.root, self.number, self.starts = root, number, 0
        root.mkdir(parents=True, exist_ok=True)
        scontrol = root / "bin" / "scontrol"
        scontrol.parent.mkdir()
        scontrol.write_text(f'#!/bin/sh\necho "$@" >> {root / "scontrol.txt"}\n')
        scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)

    @property
    def asked(self) -> list[str]:
        """What `scontrol` was asked for."""
        path = self.root / "scontrol.txt"
        return path.read_text().splitlines() if path.exists() else []

    def srun(self, words: list[str], tasks: int, when: Callable[[], bool] | None = None, **more: str) -> list[int]:
        """Start `taggant` in some tasks, signal all of them once a condition holds, and return how they ended."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NAME": "fit",
            "SLURM_NTASKS": str(tasks),
            "SLURM_NTASKS_PER_NODE": str(tasks),
            "SLURM_NNODES": "1",
            "SLURM_NODELIST": "localhost",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NODEID": "0",
            "SLURM_RESTART_COUNT": str(self.starts),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "OMP_NUM_THREADS": "1",
            **more,
        }
        self.starts += 1
        processes = []
        for rank in range(tasks):
            with (self.root / f"task-{rank}.txt").open("ab") as output:
                own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
                command = [sys.executable, "-m", "taggant_lightning", *words]
                processes.append(
                    subprocess.Popen(command, cwd=self.root, env=common | own, stdout=output, stderr=subprocess.STDOUT)
                )
        try:
            deadline = time.monotonic() + 240
            while when is not None and not when():
                assert time.monotonic() < deadline, self.output()
                assert all(p.poll() is None for p in processes), self.output()
                time.sleep(0.01)
            if when is not None:
                for process in processes:
                    process.send_signal(signal.SIGUSR1)
            return [process.wait(timeout=240) for process in processes]
        finally:
            for process in processes:
                process.kill()

    def output(self) -> str:
        """Return what the tasks have written."""
        return "\n".join(path.read_text()[-4000:] for path in sorted(self.root.glob("task-*.txt")))
