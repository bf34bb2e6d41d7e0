"""Weights from a file, to start from when fine-tuning."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.creation import head_names

log = logging.getLogger(__name__)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without unpickling code.

    Args:
        path: A .safetensors, .pth, .bin or .ckpt file, or a folder with `model.safetensors` as Hugging Face lays it out.
            Of a file that holds averaged weights too, these are taken.

    Returns:
        The weights by their names in the model.

    Raises:
        TaggantError: If there is no such file, or it cannot be read.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise TaggantError(f"weights={path} is no file; write a .safetensors, .pth or .ckpt file")
    from timm.models import load_state_dict

    try:
        content = load_state_dict(str(path), weights_only=True)
        return {name.removeprefix("model."): value for name, value in content.items() if isinstance(value, Tensor)}
    except Exception as error:  # torch raises many types for a file it cannot read
        raise TaggantError(
            f"weights={path} cannot be read without unpickling code ({type(error).__name__}); save a state dict"
        ) from None


def start_from(model: nn.Module, path: Path, again: Callable[[Mapping[str, Tensor]], nn.Module] | None = None) -> list[str]:
    """Load the weights that fit a model.

    Args:
        model: The model.
        path: What `read_weights` takes.
        again: Builds the model, where it is timm's, once more from weights that timm fits to it: position embeddings of
            another image size, patches of another size, a first layer for other channels. Without it, such entries start
            afresh.

    Returns:
        Names of the model's entries that start afresh, for instance the head for other classes.

    Raises:
        TaggantError: If the file cannot be read, or fits less than half of the entries.
    """
    stored, own = read_weights(path), model.state_dict()
    head = head_names(model)
    named = [name for name in own if name in stored]
    fitting = {name: stored[name] for name in named if own[name].shape == stored[name].shape}
    fresh = [name for name in own if name not in fitting]
    if again is not None and head and set(fresh) - set(head) and len(named) * 2 >= len(own):
        try:
            adapted = again(stored).state_dict()
        except Exception as error:  # timm raises many types for what it cannot fit; that starts afresh, then
            log.warning("timm cannot fit weights=%s to the model (%s)", path, type(error).__name__)
        else:
            fitting = {name: adapted[name] for name in own if name not in head} | {n: fitting[n] for n in head if n in fitting}
            fresh = [name for name in own if name not in stored or name not in fitting]
    if len(fitting) * 2 < len(own):
        raise TaggantError(f"weights={path} fits {len(fitting)} of {len(own)} entries; it belongs to another architecture")
    model.load_state_dict({**own, **fitting})
    log.info("weights from %s; fresh: %s", path, ", ".join(fresh) or "none")
    return fresh
