"""One round of crafting: all keys of one process against one state of the surrogates, and the Signature that comes of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json
from taggant_lightning.methods.taggants.crafting.crafting import Crafted, Settings, craft_key
from taggant_lightning.methods.taggants.crafting.objective import SigningImages, Surrogate
from taggant_lightning.methods.taggants.crafting.perturbation import eps_steps
from taggant_lightning.methods.taggants.crafting.progress import COSINE_SECONDS, Rarely, steps_bar
from taggant_lightning.methods.taggants.crafting.snapshots import weights_digest
from taggant_lightning.methods.taggants.crafting.state import CraftingState
from taggant_lightning.methods.taggants.crafting.team import Team
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.model_input import key_images
from taggant_lightning.models.perceptual import Perceptual
from taggant_lightning.release.signature import Signature, pixel_digest


def craft_round(
    keys: KeySet,
    mine: Mapping[int, Team],
    chosen: Sequence[SigningImages],
    surrogates: Sequence[Surrogate],
    settings: Settings,
    *,
    state: CraftingState,
    number: int,
    digest: str,
    perceptual: Perceptual | None,
    visible: bool,
    keep: bool,
    carry: bool,
) -> dict[int, Crafted]:
    """Craft some keys, or take up those that are finished already.

    Args:
        keys: The KeySet.
        mine: Numbers of the keys that this process crafts, each with the team that it does that in.
        chosen: Signing images of every key.
        surrogates: In evaluation mode, on one device.
        settings: How to craft.
        state: Where finished keys are kept, and where the earlier round's lie.
        number: The round's number, from 0.
        digest: Of everything that the result follows from; `digest_of` makes it.
        perceptual: LPIPS, or None.
        visible: Whether to show a progress bar.
        keep: Whether to keep finished keys, and points of unfinished ones, in the state.
        carry: Whether a later round starts from this one.

    Returns:
        Stored steps and cosine of each key whose team this process leads; the perturbations before rounding stay in the state.

    Raises:
        TaggantError: If the state of the earlier round is missing or damaged.
    """
    images, device = key_images(keys, settings.image_size), surrogates[0].parameters[0].device
    found: dict[int, Crafted] = {}
    with steps_bar(len(mine) * settings.steps * settings.restarts, visible) as bar:
        shown = Rarely(COSINE_SECONDS)

        def on_step(cosine: torch.Tensor, deltas: list[torch.Tensor]) -> None:
            bar.update()
            if visible and shown.due():  # reading the cosine waits for the device
                bar.set_postfix(cosine=f"{float(cosine):.3f}", refresh=False)

        for key, team in mine.items():
            done = team.from_leader(state.load(number, key, digest) if keep and team.leads else None)
            if done is None:
                done = craft_key(
                    chosen[key],
                    images[key : key + 1],
                    surrogates,
                    settings,
                    key=key,
                    device=device,
                    perceptual=perceptual,
                    start=team.from_leader(_start(state, number, key) if team.leads else None),
                    checkpointer=state.checkpointer(number, key, digest) if keep and team.leads else None,
                    on_step=on_step,
                    team=team,
                )
                if keep and team.leads:
                    state.save(number, key, digest, done, carry=carry)
            else:
                bar.update(settings.steps * settings.restarts)
            if team.leads:
                found[key] = replace(done, deltas=[])
    return found


def _start(state: CraftingState, number: int, key: int) -> list[torch.Tensor] | None:
    if number == 0:
        return None
    before = state.load(number - 1, key, None)
    if before is None:
        raise TaggantError(f"{state.directory}: the state of round {number} is missing or damaged; start anew in a new folder")
    return before.deltas


def digest_of(
    surrogates: Sequence[Surrogate], settings: Settings, chosen: Sequence[SigningImages], facts: dict[str, Any]
) -> str:
    """Digest everything that a round's result follows from: settings, facts, images and the surrogates' weights."""
    stated = {**asdict(settings), "micro_batch": 0, "ids": [c.ids for c in chosen], **facts}
    digest = hashlib.sha256(canonical_json(stated))
    for surrogate in surrogates:
        digest.update(weights_digest(surrogate.model))
    return digest.hexdigest()


def signing_images(source: ImageSource, chosen: Sequence[NDArray[np.int64]], labels: NDArray[np.int64]) -> list[SigningImages]:
    """Read the signing images of each key.

    Args:
        source: The images.
        chosen: Source indices of each key's signing images.
        labels: (K,) labels of the keys.

    Returns:
        K entries.
    """
    return [
        SigningImages.of(ids.tolist(), [source.pixels(int(i)) for i in ids], int(label))
        for ids, label in zip(chosen, labels, strict=True)
    ]


def assemble(
    keys: KeySet,
    source: ImageSource,
    chosen: Sequence[SigningImages],
    crafted: Sequence[Crafted],
    eps: float,
    facts: dict[str, Any],
) -> Signature:
    """Put the keys' results together.

    Args:
        keys: The KeySet.
        source: What is signed.
        chosen: Signing images of each key.
        crafted: Result of each key.
        eps: Bound, pixel fraction.
        facts: Aggregates to keep with the Signature.

    Returns:
        The Signature, indices ascending.
    """
    rows = [
        (index, steps.numpy(), key, pixel_digest(pixels.numpy()))
        for key, (result, images) in enumerate(zip(crafted, chosen, strict=True))
        for index, steps, pixels in zip(
            images.ids,
            (row for group in result.steps for row in group),
            (row for group in images.pixels for row in group),
            strict=True,
        )
    ]
    rows.sort(key=lambda row: row[0])
    return Signature(
        method=keys.method,
        indices=np.array([row[0] for row in rows], dtype=np.int64),
        steps=[row[1] for row in rows],
        served=np.array([row[2] for row in rows], dtype=np.int64),
        originals=[row[3] for row in rows],
        fingerprint=source.fingerprint,
        bound=eps_steps(eps),
        commitment=keys.commitment,
        facts={"eps": eps, "cosines": [c.cosine for c in crafted], **facts},
    )
