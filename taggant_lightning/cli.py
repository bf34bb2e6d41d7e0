"""The command `taggant`: hands over to one file a command, and imports only what that command needs."""

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from taggant_lightning import __version__
from taggant_lightning.commands.fragments import with_fragments
from taggant_lightning.errors import TaggantError
from taggant_lightning.outside import say

FULL = (errno.ENOSPC, errno.EDQUOT)
FAILING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN)  # a disk, or the network behind it
# Command, module under `commands`, what it does.
COMMANDS = {
    "demo": ("demo", "the whole story on handwritten digits, in about a minute on a CPU"),
    "keys": ("keys", "draw, show, verify a KeySet: taggant keys new | promise | fulfil | show | verify | …"),
    "plan": ("plan", "what signing, training and detection will cost: hours, memory, bytes"),
    "fit": ("training", "train a surrogate (with TaggantSigning), or any model on any data"),
    "validate": ("training", "validate a model"),
    "test": ("training", "test a model; with KeyDetection, reach the verdict"),
    "predict": ("training", "write a model's ranked labels to predictions.csv"),
    "sign": ("sign", "mark the data by a method that needs no surrogate in training"),
    "detect": ("detect", "ask somebody else's model (file, service, predictions) and reach the verdict"),
    "report": ("report", "one self-contained page on detections, for a person to read and print"),
    "table": ("table", "tables and plots of experiments' results"),
    "release": ("release", "write the signed dataset, read it back and check it"),
    "sweep": ("sweep", "run an experiment: rows × repeats of commands, as a graph that is never run twice"),
    "convert": ("convert", "write .beton files for the fast loader (--data.backend ffcv)"),
    "inspect": ("inspect", "look for images that do not belong, as a suspicious user of a dataset would"),
}


def usage() -> str:
    """Return the program's help."""
    lines = [f"  {name:<9} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: taggant COMMAND [ARGUMENTS]      (taggant COMMAND --help tells more)",
            "",
            "Mark an image dataset before publishing it, and test later who trained on it.",
            "",
            *lines,
            "",
            "The usual order: keys new → fit (surrogate, signing) → release → … → fit and test (a suspect).",
            "--config takes a file, or by its name a fragment that comes with the package: data/imagefolder, model/resnet18, …",
            "Bad input exits with code 2 and one sentence; a full disk, or a service that stays down, with 1, and the same",
            "command then goes on.",
        ]
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: Words after the program's name; None takes them from the process.

    Returns:
        0; 2 for bad input; 1 for a full or failing disk or a service that stays down, after which the same command goes on;
        3 for a claim that nothing speaks against and whose model was not asked.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal or log that lacks a letter gets its number, and no traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"taggant {__version__}")
        return 0
    if words[0] not in COMMANDS:
        say(f"taggant: command {words[0]!r} is unknown; write one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"taggant_lightning.commands.{COMMANDS[words[0]][0]}")
    try:
        module.run(with_fragments(words))
        sys.stdout.flush()
    except TaggantError as error:
        say(f"taggant {words[0]}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # a reader such as `head` has seen enough; the interpreter would complain of what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in FULL:
            return _unreachable(words[0], error)
        where = f" while writing {error.filename}" if error.filename else ""
        said = f"no space left on the disk{where}; free some and run the same command again"
        say(f"taggant {words[0]}: {said}", file=sys.stderr)
        return 1
    return 0


def _unreachable(command: str, error: OSError) -> int:
    """Say which path cannot be read or written, and why; what names no path is another failure, and raised."""
    if error.filename is None or error.errno is None:
        raise error
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    wrong = error.errno not in FAILING
    advice = "name another path, or change its permissions" if wrong else "mend that and run the same command again"
    say(f"taggant {command}: {place!r} cannot be read or written ({os.strerror(error.errno)}); {advice}", file=sys.stderr)
    return 2 if wrong else 1
