"""`taggant demo`: the whole story on scikit-learn's handwritten digits, on a CPU."""

import argparse
import importlib
import logging
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_paths, write_json

DRAWN_LOG10_P = -5.0  # where the picture draws its line


@dataclass(frozen=True)
class Recipe:
    """What the demo does; the defaults were chosen on seeds 0 to 9 (docs/decisions.md).

    Attributes:
        num_keys: K.
        images_per_key: Signing images a key.
        eps: Bound, pixel fraction.
        steps: Crafting steps.
        lr: First step in units of eps.
        grid: Side of the keys' noise grid.
        epochs: Of the surrogate and of both Bobs.
        model: Architecture of all three.
        learning_rate: Of all three.
        selection: How signing images are chosen: `random` or `gradient_norm`.
        top_k: A hit is a key label among the first k answers.
    """

    num_keys: int = 40
    images_per_key: int = 4
    eps: float = 64 / 255
    steps: int = 150
    lr: float = 0.05
    grid: int = 8
    epochs: int = 60
    model: str = "small_mlp"
    learning_rate: float = 2e-3
    selection: str = "gradient_norm"
    top_k: int = 1


def _parser() -> argparse.ArgumentParser:
    recipe = Recipe()
    parser = argparse.ArgumentParser(prog="taggant demo", description=__doc__)
    parser.add_argument("--out", default="demo", metavar="DIR", help="new folder for everything the demo makes (demo)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything, keys included (0)")
    group = parser.add_argument_group("to explore (keep the defaults for the story)")
    group.add_argument("--num-keys", type=int, default=recipe.num_keys, metavar="K", help=f"keys ({recipe.num_keys})")
    group.add_argument(
        "--images-per-key", type=int, default=recipe.images_per_key, metavar="M", help=f"images ({recipe.images_per_key})"
    )
    group.add_argument("--eps-steps", type=int, default=64, metavar="n", help="bound n/255 (64)")
    group.add_argument("--model", default=recipe.model, metavar="NAME", help=f"architecture ({recipe.model})")
    group.add_argument("--steps", type=int, default=recipe.steps, metavar="S", help=f"crafting steps ({recipe.steps})")
    group.add_argument("--selection", default=recipe.selection, metavar="HOW", help=f"signing images ({recipe.selection})")
    group.add_argument("--top-k", type=int, default=recipe.top_k, metavar="k", help=f"k of the test ({recipe.top_k})")
    group.add_argument("--epochs", type=int, default=recipe.epochs, metavar="E", help=f"epochs ({recipe.epochs})")
    group.add_argument("--grid", type=int, default=recipe.grid, metavar="G", help=f"key grid, up to 8 ({recipe.grid})")
    return parser


def run(words: list[str]) -> None:
    """Run `taggant demo`."""
    arguments = _parser().parse_args(words[1:])
    given_paths(arguments, "out")
    recipe = Recipe(
        num_keys=arguments.num_keys,
        images_per_key=arguments.images_per_key,
        eps=arguments.eps_steps / 255,
        model=arguments.model,
        steps=arguments.steps,
        grid=arguments.grid,
        epochs=arguments.epochs,
        selection=arguments.selection,
        top_k=arguments.top_k,
    )
    out = Path(arguments.out)
    if out.exists() and any(out.iterdir()):
        if not (out / "result.json").exists():
            raise TaggantError(f"out={out} exists and holds no finished demo; remove it or name a new folder")
        raise TaggantError(f"out={out} holds a demo already; remove it or name a new folder")
    demo(out, arguments.seed, recipe)
    print(f"\nEverything is in {out}/: result.json, the pictures signed_images.png and key_hits.png, both Bobs' detection.json")


def demo(out: Path, seed: int, recipe: Recipe) -> dict[str, Any]:
    """Tell the story once.

    Args:
        out: Folder to fill.
        seed: Seed of keys, surrogate, crafting and Bobs (both Bobs share one seed, another than Alice's).
        recipe: What to do.

    Returns:
        The content of result.json.
    """
    _quiet()

    from taggant_lightning.commands.release import publish
    from taggant_lightning.commitment.guessable import DEMO, demo_secret
    from taggant_lightning.data.datamodule import ImageDataModule
    from taggant_lightning.methods.taggants.keys import KeySet
    from taggant_lightning.methods.taggants.signing import TaggantSigning
    from taggant_lightning.release.signature import Signature
    from taggant_lightning.release.signed import SignedDataModule

    started = time.monotonic()
    print("1 of 5  Alice draws secret keys")
    data = ImageDataModule("digits", seed=2 * seed)
    keys = KeySet.draw(
        num_keys=recipe.num_keys,
        num_classes=data.num_classes,
        shape=(data.channels, data.image_size, data.image_size),
        grid=recipe.grid,
        top_k=recipe.top_k,
        statement="handwritten digits bundled with scikit-learn",
        secret=demo_secret(DEMO, seed),
        demo_only=True,
    )
    signing = TaggantSigning(
        str(out / "secret" / "keys"),
        str(out / "secret" / "signature"),
        images_per_key=recipe.images_per_key,
        min_images_per_key=2,
        eps=recipe.eps,
        steps=recipe.steps,
        optimizer="sign_adam",
        snapshots=(),
        lr=recipe.lr,
        init="uniform",
        derivative="exact",
        selection=recipe.selection,  # type: ignore[arg-type]  # checked where it is used
        seed=seed,
    )
    keys.save(out / "secret" / "keys")
    print(f"        commitment {keys.commitment}")

    print("2 of 5  Alice trains a surrogate, and signs")
    _fit(out / "alice", data, recipe, 2 * seed, [signing])
    signature = Signature.load(out / "secret" / "signature")

    print("3 of 5  Alice publishes the release (read back and checked)")
    release = out / "release"
    report = publish(data, signature, release, statement=keys.header["statement"])

    verdicts, curves = {}, {}
    for number, (name, bob_data) in enumerate(
        (
            ("signed", SignedDataModule(release=str(release), source="digits", seed=2 * seed + 1)),
            ("clean", ImageDataModule("digits", seed=2 * seed + 1)),
        ),
        start=4,
    ):
        print(f"{number} of 5  A Bob trains on the {'release' if name == 'signed' else 'original data'}, and is tested")
        verdicts[name], curves[name] = _bob(out / f"bob-{name}", bob_data, recipe, 2 * seed + 1, str(out / "secret" / "keys"))

    source = signature.apply(data.train_source)
    pairs = [(source.original.pixels(i), source.pixels(i)) for i in source.signed_indices]
    result = {
        "schema_version": 1,
        "seed": seed,
        **{name: _numbers(verdict, accuracy) for name, (verdict, accuracy) in verdicts.items()},
        "signing": {
            "images_signed": len(signature),
            "fraction": len(signature) / len(data.train_indices),
            "eps": recipe.eps,
            "max_step": report["max_step"],
            "psnr": report["visibility"]["psnr_mean"],
            "mean_cosine": signature.facts["cosine_mean"],
            "seconds": signature.facts["seconds"],
        },
        "seconds": time.monotonic() - started,
    }
    write_json(out / "result.json", result)
    _draw(out, pairs, curves, keys, recipe)
    _tell(result, {name: verdict for name, (verdict, _) in verdicts.items()}, len(data.train_indices))
    return result


def _quiet() -> None:
    """Keep Lightning's notes out of the story; errors still show."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        importlib.import_module(name)  # which sets the level of its own logger
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="(lightning|torch).*")
    # Digits are so small that starting a second thread costs more than it saves.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _fit(folder: Path, data: Any, recipe: Recipe, seed: int, callbacks: list[Any]) -> tuple[Any, Any]:
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.loggers import CSVLogger

    from taggant_lightning.models.classifier import ImageClassifier

    torch.set_num_threads(1)
    pl.seed_everything(seed, workers=True, verbose=False)
    model = ImageClassifier(
        recipe.model,
        num_classes=data.num_classes,
        image_size=data.image_size,
        channels=data.channels,
        lr=recipe.learning_rate,
        mean=0.3,
        std=0.35,
    )
    trainer = pl.Trainer(
        max_epochs=recipe.epochs,
        accelerator="cpu",
        devices=1,
        default_root_dir=str(folder),
        logger=CSVLogger(str(folder), name="", version=""),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=data)
    return trainer, model


def _bob(folder: Path, data: Any, recipe: Recipe, seed: int, keys: str) -> tuple[tuple[Any, float], list[tuple[int, float]]]:
    import csv

    from taggant_lightning.verdict.key_detection import KeyDetection

    detection = KeyDetection(keys, curve=True)  # which costs the demo's keys nothing: no claim rests on them
    trainer, model = _fit(folder, data, recipe, seed, [detection])
    accuracy = float(trainer.callback_metrics["val/acc"])
    trainer.test(model, datamodule=data, verbose=False)
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("keys/hits")]
    return (detection.detection, accuracy), [(int(row["epoch"]) + 1, float(row["keys/hits"])) for row in rows]


def _numbers(detection: Any, accuracy: float) -> dict[str, Any]:
    names = ("hits", "num_keys", "top_k", "num_classes")
    return {**{n: detection.details[n] for n in names}, "log10_p": detection.log10_p, "val_acc": accuracy}


def _draw(out: Path, pairs: list[Any], curves: dict[str, Any], keys: Any, recipe: Recipe) -> None:
    from taggant_lightning.reporting.figures import hit_curves, signed_panel
    from taggant_lightning.statistics import binomial_log10_p

    shown = pairs[:: max(1, len(pairs) // 8)][:8]
    bound = round(recipe.eps * 255)
    signed_panel([b for b, _ in shown], [a for _, a in shown], out / "signed_images.png", bound=bound, gain=2)
    enough = (h for h in range(len(keys) + 1) if binomial_log10_p(h, len(keys), keys.rate) <= DRAWN_LOG10_P)
    named = {"Bob trained on the release": curves["signed"], "Bob trained on the originals": curves["clean"]}
    hit_curves(named, out / "key_hits.png", num_keys=len(keys), rate=keys.rate, detected_from=next(enough, len(keys)))


def _tell(result: dict[str, Any], verdicts: dict[str, Any], total: int) -> None:
    from taggant_lightning.reporting.sentences import finding, meaning, visibility

    signing = result["signing"]
    print(
        f"\nSigned {signing['images_signed']} of {total} images ({signing['fraction']:.1%}), labels untouched,"
        f" mean cosine {signing['mean_cosine']:.2f}."
    )
    print(visibility(signing["max_step"], signing["psnr"]))
    print(f"\n{'':<28}{'key hits':>10}{'log10 p':>10}{'accuracy':>10}")
    for name, label in (("signed", "Bob trained on the release"), ("clean", "Bob trained on originals")):
        row = result[name]
        print(f"{label:<28}{row['hits']:>7}/{row['num_keys']}{row['log10_p']:>10.2f}{row['val_acc']:>10.3f}")
    print()
    print(finding("The Bob trained on the release", verdicts["signed"]))
    print(finding("The Bob trained on the originals", verdicts["clean"]))
    print(meaning())
    print("These keys come from the demo's seed, which anybody can guess: good for a story, refused for a claim.")
