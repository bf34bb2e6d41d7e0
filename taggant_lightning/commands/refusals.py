"""What Lightning says when it refuses its arguments or a checkpoint, as one sentence."""

import traceback

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.trainer import trainer
from lightning.pytorch.trainer.connectors import checkpoint_connector

from taggant_lightning.commands.reasons import reason

LONGEST = 300  # letters of Lightning's own words; a model's list of unlike weights is as long as the model


def refusal(error: Exception, ckpt_path: object) -> str | None:
    """Return what a user did wrong where Lightning, or the parser, says so; None for a failure of another kind.

    Lightning raises many types. A ValueError that its own code raises is a refusal; what its Trainer's constructor raises is
    about `--trainer`, and what it raises while it restores a checkpoint is about `--ckpt_path`, whatever the type.

    Args:
        error: What was raised.
        ckpt_path: The checkpoint that the run begins with.
    """
    if isinstance(error, ValueError) and (sentence := reason(error)) is not None:
        return sentence
    if isinstance(error, OSError):  # told by its own file
        return None
    said = _short(error)
    if _passed(error, checkpoint_connector.__name__, ("restore", "_restore", "resume", "_select")):
        return (
            f"ckpt_path={ckpt_path} does not suit this run ({said}); use the model, the optimizer and the trainer's arguments "
            "that it was written with"
        )
    if isinstance(error, MisconfigurationException) or _passed(error, trainer.__name__, ("__init__",)) or _own(error):
        return f"the trainer's arguments do not fit together: {said}"
    return None


def _short(error: Exception) -> str:
    """Return a message on one line, cut where it is long, without marks that a terminal would obey."""
    words = "".join(letter if letter.isprintable() else " " for letter in str(error) or type(error).__name__)
    line = " ".join(words.split()).rstrip(".")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def _own(error: Exception) -> bool:
    """Say whether Lightning itself raised a ValueError, and no code of a model, data module or callback."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, ValueError) and str(frame.f_globals.get("__name__")).startswith("lightning.pytorch.")


def _passed(error: Exception, module: str, functions: tuple[str, ...]) -> bool:
    """Say whether an exception came out of one of a module's functions, named by their beginnings."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(f.f_globals.get("__name__") == module and f.f_code.co_name.startswith(functions) for f in frames)
