"""The package as a whole: quick to import, quick to ask for help, imports that point one way, house rules."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import taggant_lightning

ROOT = Path(taggant_lightning.__file__).parent
HEAVY = ("torch", "lightning", "timm", "lpips", "scipy", "sklearn", "matplotlib", "torchvision", "wandb", "ffcv")
# A room may import rooms of a lower rank, or itself.
RANK = {
    "": 0, "errors": 0, "outside": 0, "streams": 1, "files": 1, "parallel": 1,
    "statistics": 2,
    "data": 3, "models": 3, "access": 3, "evidence": 3,
    "release": 4, "commitment": 4, "gradients": 4,
    "methods": 5,
    "verdict": 6, "reporting": 6, "adversary": 6, "planning": 6,
    "sweeps": 7,
    "commands": 8, "cli": 9, "__main__": 10,
}  # fmt: skip


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize(
    "words",
    [["-c", "import taggant_lightning"], *(["-m", "taggant_lightning", *w, "--help"] for w in ([], ["keys"], ["detect"]))],
)
def test_import_and_help_are_light(words: list[str]) -> None:
    code = f"import atexit, sys; sys.argv = {['taggant', *words[2:]]!r}\n"
    code += f"atexit.register(lambda: print(sorted(set({HEAVY!r}) & set(sys.modules))))\n"  # as help ends the process
    code += "import taggant_lightning\n" if words[0] == "-c" else "from taggant_lightning.cli import main; main()\n"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
    assert time.monotonic() - started < 5


def test_public_names() -> None:
    for name in taggant_lightning.__all__:
        assert getattr(taggant_lightning, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = taggant_lightning.nothing


def test_imports_point_one_way() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).with_suffix("").parts[0]
        here = "" if here == "__init__" else here
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in names:
                if name and name.split(".")[0] == "taggant_lightning" and here:
                    there = room(name)
                    if there != here and RANK[there] >= RANK[here]:
                        wrong.append(f"{path.relative_to(ROOT)} imports {name}")
                optional = name and name.split(".")[0] in ("ffcv", "wandb")
                if optional and path.name != "beton.py":  # the one file that may, within its functions
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
                if name and name.split(".")[0] == "pytorch_lightning":
                    wrong.append(f"{path.relative_to(ROOT)} mixes pytorch_lightning with lightning")
    assert not wrong


def test_what_is_printed_passes_through_one_function() -> None:
    """Whose lines are all the program's own may print; every other line could carry a stranger's text to a terminal."""
    own = {"outside/text.py", "cli.py", "commands/plan.py", "commands/demo.py", "commands/resolved.py",
           "methods/taggants/crafting/progress.py",
           "access/parquet_rows.py"}  # the last writes JSON to the process that reads it  # fmt: skip
    found = set()
    for path in ROOT.rglob("*.py"):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        if any(isinstance(call, ast.Name) and call.id == "print" for call in calls):
            found.add(str(path.relative_to(ROOT)))
    assert found <= own


def test_no_assert_and_no_pickle_in_the_package() -> None:
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Assert)], path
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            text = ast.unparse(call)
            assert not re.match(r"torch\.load\((?!.*weights_only=True)", text), text
            assert not re.match(r"np\.load\((?!.*allow_pickle=False)", text), text
            assert not text.startswith("pickle."), text
