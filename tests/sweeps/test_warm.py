"""Commands that begin warm: what they leave behind equals what interpreters of their own leave; a kill costs one command."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from taggant_lightning.cli import main
from taggant_lightning.commands.sweep import imported_once
from taggant_lightning.sweeps.processes import Processes
from taggant_lightning.sweeps.warm import LOST
from tests.sweeps.scripts import write_experiment

ENDS = {
    "succeeds": "import sys\nprint('out', sys.argv[1:])\nprint('err', file=sys.stderr)",
    "raises": "def f():\n    raise ValueError('wrong')\nf()",
    "raises from": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('wrong') from error",
    "no Python": "x = = 1",
    "exits": "import sys\nsys.exit(3)",
    "exits with words": "raise SystemExit('a sentence')",
    "exits beyond a byte": "raise SystemExit(256 + 7)",
    "leaves at once": "import os\nprint('never flushed')\nos._exit(5)",
    "is killed": "import os, signal\nprint('said', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)",
    "is asked to end": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "is interrupted": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('late')",
    "ends with handlers and threads": (
        "import atexit, threading, time, weakref\n"
        "class Thing: pass\nthing = Thing()\nweakref.finalize(thing, print, 'finalised')\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\nprint('last line')"
    ),
    "fails at exit": "import atexit\natexit.register(lambda: 1 / 0)",
    "sees itself": (
        "import __main__, os, signal, sys, threading\n"
        "print(__name__, __file__, __spec__, __package__, __main__.__dict__ is globals())\n"
        "print(sys.argv, sys.orig_argv[1:], sys.path)\n"
        "print(os.getcwd(), sys.stdin.read(), sys.stdout.isatty(), threading.active_count())\n"
        "print([signal.getsignal(n) for n in (2, 13, 15, 17)], signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "print([os.fstat(n).st_mode for n in range(3)], os.environ['OMP_NUM_THREADS'])"
    ),
    "has a neighbour": "import neighbour\nprint(neighbour.__file__)",
    "is a module": "import multiprocessing as m\ndef f(x):\n    return x + 1\nif __name__ == '__main__':\n"
    "    with m.get_context('spawn').Pool(1) as pool:\n        print(pool.map(f, [1, 2]))",
}  # fmt: skip


@pytest.fixture(scope="module")
def light() -> Iterator[Processes]:
    """A zygote that has imported little."""
    processes = Processes(2, modules=["numpy", "taggant_lightning.cli"])
    yield processes
    processes.close()


def ran(execute: Any, words: list[str], folder: Path) -> tuple[int, str]:
    """Run a command as a sweep does, and return its exit status and what it said."""
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = execute(words, log, lock.fileno())
    return status, re.sub("0x[0-9a-f]+", "0x…", log.read_text())


def script(folder: Path, text: str, name: str = "script.py") -> list[str]:
    (folder / name).write_text(text)
    return ["python", str(folder / name)]


@pytest.mark.parametrize("name", ENDS)
def test_a_command_ends_warm_as_it_ends_cold(name: str, light: Processes, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("")
    words = [*script(tmp_path, ENDS[name]), "--a", "b c"]
    warm = ran(light, words, tmp_path)
    cold = ran(Processes(2), words, tmp_path)
    assert warm == cold
    assert light._warm is not None
    assert light._warm._zygote.poll() is None
    assert warm[1].startswith(f"$ python {tmp_path}/script.py --a b c\n")


@pytest.mark.parametrize("words", [["nothing"], ["keys", "show", "nowhere"], ["keys", "new", "--nothing"], ["--version"], []])
def test_taggant_ends_warm_as_it_ends_cold(words: list[str], light: Processes, tmp_path: Path) -> None:
    found = ran(light, ["taggant", *words], tmp_path)
    assert found == ran(Processes(2), ["taggant", *words], tmp_path)
    assert found[0] == (0 if words in (["--version"], []) else 2)


def test_what_cannot_begin_warm_begins_cold(light: Processes, tmp_path: Path) -> None:
    for words in (["python", "-c", "print(1)"], ["python", str(tmp_path / "none.py")], ["python", "-m", "none"]):
        assert ran(light, words, tmp_path) == ran(Processes(2), words, tmp_path)
    processes = Processes(1, modules=["there_is_no_such_module"])
    assert ran(processes, script(tmp_path, "print(1)"), tmp_path)[0] == 0
    processes.close()


def test_a_zygote_that_cannot_import_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    processes = Processes(1, modules=["there_is_no_such_module"])
    for _ in range(2):
        assert ran(processes, script(tmp_path, "print(1)"), tmp_path)[0] == 0
    processes.close()
    said = capsys.readouterr().err
    assert said.count("taggant sweep: ") == 1
    assert "(ModuleNotFoundError: No module named 'there_is_no_such_module')" in said


SPOILS = """
import gc, logging, os, random, signal, sys, threading, warnings
import numpy as np
import torch
os.environ["SPOILT"] = "yes"
os.chdir("/")
os.umask(0o777)
sys.path.append("/spoilt")
signal.signal(signal.SIGUSR1, lambda *_: None)
warnings.simplefilter("error")
logging.getLogger().addHandler(logging.StreamHandler())
logging.getLogger().setLevel(1)
torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(3)
torch.use_deterministic_algorithms(True)
torch.set_grad_enabled(False)
torch.nn.Linear = None
sys.stdout.close()
"""
ASKS = """
import gc, logging, os, random, signal, sys, warnings
import numpy as np
import torch
from threadpoolctl import threadpool_info
print(os.environ.get("SPOILT"), os.getcwd(), "/spoilt" in sys.path, signal.getsignal(signal.SIGUSR1), os.umask(0o22))
print([f for f in warnings.filters if f[0] == "error"], logging.getLogger().handlers, logging.getLogger().level)
print(torch.get_default_dtype(), torch.get_num_threads(), torch.get_num_interop_threads())
print(torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.nn.Linear, gc.get_threshold())
print(os.environ["OMP_NUM_THREADS"], float((torch.ones(300, 300) @ torch.ones(300, 300)).sum()))
print(sorted((pool["internal_api"], pool["num_threads"]) for pool in threadpool_info()))
print("random", random.random(), np.random.rand(), torch.initial_seed(), float(torch.rand(1)))
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_nothing_goes_over_to_the_next_command(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")  # the numbers of threads follow from the jobs
    processes, asks = Processes(jobs, modules=["torch"]), script(tmp_path, ASKS, "asks.py")
    ran(processes, script(tmp_path, SPOILS, "spoils.py"), tmp_path)
    first, second = (ran(processes, asks, tmp_path) for _ in range(2))
    processes.close()
    cold = ran(Processes(jobs), asks, tmp_path)
    drawn = [re.search("random (.*) (.*) (.*) (.*)", said).groups() for _, said in (first, second, cold)]
    assert len({number for numbers in drawn for number in numbers}) == 12
    assert [said.split("random")[0] for _, said in (first, second)] == [cold[1].split("random")[0]] * 2
    assert first[0] == 0


def begin(execute: Processes, words: list[str], folder: Path) -> tuple[threading.Thread, list[tuple[int, str]]]:
    """Run a command in a thread, as `run_graph` does."""
    folder.mkdir(exist_ok=True)
    found: list[tuple[int, str]] = []
    thread = threading.Thread(target=lambda: found.append(ran(execute, words, folder)))
    thread.start()
    return thread, found


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.is_file() or not path.read_text().endswith("\n"):
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
    return path.read_text().strip()


SLEEPS = "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(f'{os.getpid()}\\n')\ntime.sleep(60)"


def alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(*numbers: int) -> None:
    deadline = time.monotonic() + 10
    while any(alive(number) for number in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_command_costs_itself(tmp_path: Path) -> None:
    processes = Processes(2, modules=["numpy"])
    killed, status = begin(processes, [*script(tmp_path, SLEEPS), str(tmp_path / "a")], tmp_path / "one")
    os.kill(int(wait_for(tmp_path / "a")), signal.SIGKILL)
    killed.join(30)
    assert [number for number, _ in status] == [-signal.SIGKILL]
    assert ran(processes, script(tmp_path, "print(1)", "next.py"), tmp_path)[0] == 0
    processes.close()


def test_a_killed_zygote_costs_what_it_ran_and_the_next_is_a_new_one(tmp_path: Path) -> None:
    processes = Processes(2, modules=["numpy"])
    lost, status = begin(processes, [*script(tmp_path, SLEEPS), str(tmp_path / "a")], tmp_path / "one")
    command = int(wait_for(tmp_path / "a"))
    first = processes._warm._zygote
    first.kill()
    lost.join(30)
    assert [number for number, _ in status] == [LOST]
    assert "was killed, and the command was stopped" in status[0][1]
    gone(command)
    asks = script(tmp_path, "import os, sys\nprint(os.getppid(), 'numpy' in sys.modules)", "asks.py")
    found = ran(processes, asks, tmp_path)
    assert processes._warm._zygote.pid != first.pid
    assert found == (0, f"$ {' '.join(asks)}\n{processes._warm._zygote.pid} True\n")
    processes.close()


def test_a_command_holds_its_lock_and_no_other(tmp_path: Path) -> None:
    processes = Processes(2, modules=["numpy"])
    threads = []
    for name in "ab":
        threads.append(begin(processes, [*script(tmp_path, SLEEPS), str(tmp_path / name)], tmp_path / f"folder {name}")[0])
    numbers = [int(wait_for(tmp_path / name)) for name in "ab"]

    def locks(number: int) -> list[str]:
        files = [path.readlink() for path in Path(f"/proc/{number}/fd").iterdir()]
        return sorted(file.parent.name for file in files if file.name == "lock")

    assert [locks(number) for number in numbers] == [["folder a"], ["folder b"]]
    assert locks(processes._warm._zygote.pid) == []
    processes.stop()
    for thread in threads:
        thread.join(30)
    gone(*numbers)
    assert processes._warm._zygote.poll() is not None
    assert ran(processes, script(tmp_path, "print(1)", "next.py"), tmp_path)[0] == -signal.SIGTERM


def sweeping(path: Path, *words: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "taggant_lightning",
        "sweep",
        str(path),
        "--runs",
        str(path.parent / "runs"),
        "--run",
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGKILL, False), (signal.SIGKILL, True)]
)
def test_the_end_of_a_sweep_ends_what_it_keeps(number: int, group: bool, tmp_path: Path) -> None:
    """A signal for the sweep alone, or, as from a terminal, for the group; a kill of the sweep leaves the command, as ever."""
    stages = {
        "second": {"run": " ".join(script(tmp_path, TELLS, "tells.py")), "options": {"out": "{folder}", "seed": "{seed}"}}
    }
    path = write_experiment(tmp_path, {"rows": {"a": None}, "repeats": 1}, stages)
    process = sweeping(path)
    deadline = time.monotonic() + 90
    while not (found := list(path.parent.glob("runs/*/numbers"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    command, zygote = map(int, wait_for(found[0]).split())
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.communicate(timeout=15)  # in the time that a command is given before it is killed, all has ended
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    gone(zygote)
    if group or number != signal.SIGKILL:
        gone(command)
    else:
        assert alive(command)
        os.kill(command, signal.SIGKILL)


TELLS = """
import os, pathlib, sys, time
(pathlib.Path(sys.argv[2]) / "numbers").write_text(f"{os.getpid()} {os.getppid()}\\n")
time.sleep(60)
"""


DIES = """
import os, pathlib, signal, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if words["--seed"] == "6":
    os.kill(os.getppid() if words["--whom"] == "zygote" else os.getpid(), signal.SIGKILL)
    signal.pause()
(pathlib.Path(words["--out"]) / "metrics.json").write_text('{"value": 1}')
"""


@pytest.mark.parametrize("whom", ["command", "zygote"])
def test_a_kill_costs_a_sweep_one_command(whom: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = " ".join(script(tmp_path, DIES, "dies.py"))
    stages = {"second": {"run": run, "options": {"out": "{folder}", "seed": "{seed}", "whom": whom}}}
    path = write_experiment(tmp_path, {"rows": {"a": None}, "repeats": 4}, stages)
    with pytest.raises(SystemExit) as stop:
        main(["sweep", str(path), "--runs", str(tmp_path / "runs"), "--run"])
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "ran=3 found=0 failed=1 skipped=0" in said.out
    assert "failed (exit -9); needed by a" in said.err
    assert ("was killed, and the command was stopped" in said.err) == (whom == "zygote")
    assert len(list(tmp_path.glob("runs/*/finished.json"))) == 3


def fit(folder: Path, *more: str) -> list[str]:
    return [
        *["taggant", "fit", "--model", "ImageClassifier", "--model.model_name", "small_mlp", "--data", "ImageDataModule"],
        *["--data.source", "digits", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--seed_everything", "3"],
        *["--trainer.default_root_dir", str(folder), *more],
    ]


def test_importing_touches_no_gpu_and_starts_no_thread(tmp_path: Path) -> None:
    text = (
        "import importlib, os, sys, threading, torch\n"
        "def refuse(*a, **k): raise RuntimeError('the GPU was asked')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = torch._C._cuda_getDeviceCount = refuse\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(threading.active_count(), len(os.listdir('/proc/self/task')), torch.cuda.is_initialized())"
    )
    command = [sys.executable, "-c", text, *imported_once()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["1", "1", "False"]


@pytest.mark.slow
def test_a_training_begun_warm_gives_the_same_weights_on_one_process_and_two(tmp_path: Path) -> None:
    warm, cold = Processes(2, modules=imported_once()), Processes(2)
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    for name, more in (("one", []), ("two", two), ("again", [])):
        weights, said = [], []
        for kind, execute in (("warm", warm), ("cold", cold)):
            folder = tmp_path / f"{name}-{kind}"
            folder.mkdir()
            status, text = ran(execute, fit(folder, *more), folder)
            assert status == 0, text
            weights.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
            said.append([line for line in text.replace(str(folder), "RUN").splitlines() if "images/s" not in line])
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
        if not more:  # two processes write in any order
            assert said[0] == said[1]
    warm.close()
