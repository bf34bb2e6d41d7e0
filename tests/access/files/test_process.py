"""A model asked in a process of its own: the same answers to the bit, and what a hostile file may cost is one sentence."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from taggant_lightning.access.files import process
from taggant_lightning.access.files.exported import ask_exported
from taggant_lightning.access.files.messages import MOST_SCORES, pack, unpack
from taggant_lightning.access.files.onnx import ask_onnx
from taggant_lightning.access.files.process import ask_file
from taggant_lightning.errors import TaggantError
from tests.access.files.models import CLASSES, SIZE, images, network, write_onnx

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")
LINUX = sys.platform == "linux" and os.uname().machine == "x86_64"


def script(path: Path, model: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model.eval()).save(str(path))
    return path


def test_the_same_answers_to_the_bit(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    asked = images(35)
    program = torch.export.export(
        network(), (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=({0: torch.export.Dim("n", max=64)},)
    )
    torch.export.save(program, tmp_path / "m.pt2")
    write_onnx(tmp_path / "m.onnx")
    for way, here in (("exported", ask_exported), ("onnx", ask_onnx)):
        path = tmp_path / ("m.pt2" if way == "exported" else "m.onnx")
        found, (answers, classes) = ask_file(way, path, asked), here(path, asked)
        assert found.classes == classes == CLASSES
        assert found.answers == answers  # scores included
        assert found.checks["controls"] == found.checks["asked_twice"] == 8
        assert found.checks["in_other_company"] == 4
        assert found.checks["layout"] == "NCHW"
        if LINUX:
            assert {"memory", "writing"} <= set(found.checks["without"])


class Endless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        i = 0
        for _ in range(x.shape[0] * 1000000000000000):
            i += 1
        return x.flatten(1) + i


class Growing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.ones([1000000000000])
        return x.flatten(1) + y.sum()


def test_time_and_memory_have_limits(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(TaggantError, match=r"gave no answer within 1 seconds, as a loop without end does; .*--pass-timeout"):
        ask_file("exported", script(tmp_path / "e.pt", Endless()), images(), patience=1)
    assert time.monotonic() - started < 60
    with pytest.raises(TaggantError, match="asks for more memory than image classifiers of its size need"):
        ask_file("exported", script(tmp_path / "g.pt", Growing()), images())
    with pytest.raises(TaggantError, match="pass-timeout=0 must be seconds above 0"):
        ask_file("exported", tmp_path / "e.pt", images(), patience=0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), 11)", r"ended the process that asked it \(SIGSEGV\)"),
        ("os.kill(os.getpid(), 9)", "needed more memory than there is"),
        ("sys.exit(3)", "ended the process that asked it, as"),
        ("time.sleep(60)", "gave no answer within 1 seconds"),
        ("os.write(n, b'\\xff' * 8)", "took over the process"),
        ("os.write(n, struct.pack('>II', 2, 0) + b'[]')", "took over the process"),
        ("os.write(n, struct.pack('>II', 2, 0) + b'{}'); time.sleep(9)", "took over the process"),
        ("os.write(n, struct.pack('>II', 9000, 0) + b'[' * 9000)", "took over the process"),
        ("say({'opened': {'batch': 'x'}})", "took over the process"),
        ("say({'error': 'one\\ntwo \\x1b[31m\\u202e' + 'x' * 9999})", r"^one two \[31m x{500,}$"),
        ("say(open_); say({'scores': 1})", "took over the process"),
        ("say(open_); say({'dtype': 'float32', 'shape': [7]})", "took over the process"),
        ("say(open_); say({'dtype': 'object', 'shape': [1]})", "took over the process"),
    ],
)
def test_a_process_that_was_taken_over(body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may come back is scores or a sentence; whatever else a hostile process says or does ends in a sentence of ours."""
    shape = {"batch": None, "channels": 3, "height": SIZE, "width": SIZE, "declared": True, "channels_last": False}
    start = f"""
        import json, os, struct, sys, time
        n, open_ = int(sys.argv[1]), {{'opened': {shape!r}}}
        def say(message):
            text = json.dumps(message).encode()
            os.write(n, struct.pack('>II', len(text), 0) + text)
        say({{'ready': []}})
        {body}
        time.sleep(1)
    """
    monkeypatch.setattr(process, "START", textwrap.dedent(start))
    (tmp_path / "m.onnx").write_bytes(b"any")
    with pytest.raises(TaggantError, match=message) as error:
        ask_file("onnx", tmp_path / "m.onnx", images(), patience=1)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_messages() -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    content = bytearray(pack({"a": 1}, array))

    def read(count: int) -> bytes:
        part = bytes(content[:count])
        del content[:count]
        return part

    message, found = unpack(read)
    assert message["a"] == 1
    np.testing.assert_array_equal(found, array)
    assert not content
    with pytest.raises(ValueError, match="a message of"):
        unpack(lambda count: (MOST_SCORES + 1).to_bytes(8, "big"))


@pytest.mark.skipif(not LINUX, reason="the filter of system calls is for Linux on x86-64")
def test_what_a_confined_process_cannot_do(tmp_path: Path) -> None:
    """No file written, none removed, no socket, no program, no other process; reading and threads go on."""
    (tmp_path / "there").write_text("x")
    listener = socket.create_server(("127.0.0.1", 0))
    code = f"""
        import json, os, resource, socket, subprocess, threading
        from taggant_lightning.access.files.confine import confine
        done, failed = confine(2**28), []
        def fails(name, work):
            try:
                work()
            except Exception as error:
                failed.append(name)
        fails('write', lambda: open({str(tmp_path / "new")!r}, 'w'))
        fails('append', lambda: open({str(tmp_path / "there")!r}, 'a'))
        fails('remove', lambda: os.remove({str(tmp_path / "there")!r}))
        fails('rename', lambda: os.rename({str(tmp_path / "there")!r}, {str(tmp_path / "other")!r}))
        fails('mkdir', lambda: os.mkdir({str(tmp_path / "folder")!r}))
        fails('chmod', lambda: os.chmod({str(tmp_path / "there")!r}, 0o777))
        fails('socket', lambda: socket.create_connection(('127.0.0.1', {listener.getsockname()[1]})))
        fails('program', lambda: subprocess.run(['/bin/true']))
        fails('fork', os.fork)
        fails('kill', lambda: os.kill({os.getpid()}, 0))
        fails('memory', lambda: bytearray(2**30))
        fails('limit', lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)))
        fails('read', lambda: open({str(tmp_path / "there")!r}).read())
        fails('thread', lambda: [t.start() or t.join() for t in [threading.Thread(target=int)]])
        print(json.dumps([done, failed]))
    """
    root = str(Path(process.__file__).parents[3])
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    listener.close()
    done, failed = json.loads(ran.stdout)
    if "network" not in done:
        pytest.skip("this kernel has no filters of system calls")
    wanted = ["write", "append", "remove", "rename", "mkdir", "chmod", "socket", "program", "fork", "kill", "memory", "limit"]
    assert failed == wanted
    assert (tmp_path / "there").read_text() == "x"
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_the_process_has_nothing_of_the_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment that may hold a secret, no open file, another folder."""
    report = tmp_path / "report"
    start = f"""
        import json, os, sys
        json.dump([sorted(os.environ), os.getcwd(), os.listdir('/proc/self/fd')], open({str(report)!r}, 'w'))
    """
    monkeypatch.setattr(process, "START", textwrap.dedent(start))
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    (tmp_path / "m.onnx").write_bytes(b"any")
    with (
        (tmp_path / "secret").open("w"),
        pytest.raises(TaggantError, match="cannot be asked: the process for it did not start"),
    ):
        ask_file("onnx", tmp_path / "m.onnx", images())
    names, folder, _ = json.loads(report.read_text())
    assert "WANDB_API_KEY" not in names
    assert folder == "/"
