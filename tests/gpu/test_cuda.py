"""What a CUDA device computes: derivatives beside the CPU's in float64, and training, signing and detection by commands.

Skipped where there is none: `python -m pytest tests/gpu` on a machine with a GPU.
"""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from taggant_lightning import ImageClassifier
from taggant_lightning.cli import main
from taggant_lightning.data.augment import NUMBERS
from taggant_lightning.methods.taggants.crafting.objective import (
    Derivative,
    Objective,
    Precision,
    SigningImages,
    Surrogate,
    View,
)
from taggant_lightning.methods.taggants.crafting.team import Team
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.release.signature import Signature
from tests.conftest import write_tiny

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(600),
]
SMOOTH = {"small_cnn": None, "small_vit": None, "vit_tiny_patch16_224": {"patch_size": 4}}
MODELS = {**SMOOTH, "cifar_resnet18": None}
SIZE = 16


def objective(
    model: ImageClassifier, device: str, derivative: Derivative, precision: Precision = "32-true", recipe: str = "none"
) -> Objective:
    rng = np.random.default_rng(0)
    images = SigningImages.of(range(24), list(rng.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)), label=1)
    key = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(9))
    return Objective(
        images, key, [Surrogate(model, list(model.parameters()))], torch.device(device), image_size=SIZE, load_size=SIZE,
        recipe=recipe, micro_batch=16, precision=precision, derivative=derivative, perceptual=None, perceptual_weight=0.0,
        team=Team(),
    )  # fmt: skip


def classifier(name: str) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(name, num_classes=10, image_size=SIZE, channels=3, model_kwargs=MODELS[name]).eval()


def rise(made: Objective, recipe: str = "none") -> tuple[float, Tensor]:
    generator = torch.Generator().manual_seed(3)
    delta = (torch.rand(24, 3, 32, 32, generator=generator) - 0.5) * 16 / 255
    numbers = torch.rand(24, NUMBERS[recipe], generator=generator) if NUMBERS[recipe] else None
    value, derivative = made.ascent([delta.to(made.device, made.dtype).requires_grad_()], View(numbers), [0])
    return float(value), derivative[0].double().cpu()


def same_signs(a: Tensor, b: Tensor) -> float:
    return float((a.sign() == b.sign()).float().mean())


@pytest.mark.parametrize(
    ("name", "derivative"), [*((n, "exact") for n in MODELS), *((n, "difference") for n in SMOOTH)]
)  # fmt: skip
def test_derivatives_agree_with_the_cpu_in_float64(name: str, derivative: Derivative) -> None:
    model = classifier(name)
    value, wanted = rise(objective(copy.deepcopy(model).double(), "cpu", "exact"))
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    reached, found = rise(objective(model.cuda(), "cuda", derivative))
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    assert reached == pytest.approx(value, abs=1e-4)
    error = float((found - wanted).norm() / wanted.norm())
    print(f"{name} {derivative}: relative error {error:.1e}, signs {same_signs(found, wanted):.4f}")
    assert error < 2e-2  # double backward may take TF32, as cuDNN does by default
    assert same_signs(found, wanted) > 0.99


@pytest.mark.parametrize("name", SMOOTH)
def test_differences_need_no_leave_from_the_user(name: str) -> None:
    """TF32 that the user allows for training does not reach the difference."""
    model = classifier(name)
    _, wanted = rise(objective(copy.deepcopy(model).double(), "cpu", "exact"))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        _, found = rise(objective(model.cuda(), "cuda", "difference"))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert same_signs(found, wanted) > 0.99


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_points_the_same_way(name: str) -> None:
    model = classifier(name).cuda()
    _, wanted = rise(objective(model, "cuda", "exact"))
    _, found = rise(objective(model, "cuda", "auto", "bf16-mixed"))
    cosine = float(torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0))
    print(f"{name} bf16: cosine {cosine:.4f}, signs {same_signs(found, wanted):.4f}")
    assert cosine > 0.9


@pytest.mark.parametrize("recipe", ["simple", "three_augment", "resized_crop", "resized_three_augment", "cutout"])
def test_augmentations_agree_with_the_cpu(recipe: str) -> None:
    model = classifier("small_cnn").double()
    _, wanted = rise(objective(copy.deepcopy(model), "cpu", "exact", recipe=recipe), recipe)
    _, found = rise(objective(model.cuda(), "cuda", "exact", recipe=recipe), recipe)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-6


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "x.npz", size=12, per_class=200)
    KeySet.draw(num_keys=8, num_classes=3, shape=(3, 12, 12), grid=4, secret=bytes(range(32))).save(tmp_path / "keys")
    return tmp_path


def words(inputs: Path, command: str, folder: str, *more: str, data: str = "ImageDataModule") -> list[str]:
    return [
        *[command, "--model", "ImageClassifier", "--model.model_name", "small_cnn", "--data", data],
        *["--data.source", "npz", "--data.root", str(inputs / "x.npz"), "--data.augment", "simple", "--data.seed", "1"],
        *["--trainer.accelerator", "gpu", "--trainer.devices", "1", "--trainer.precision", "bf16-mixed"],
        *["--trainer.max_epochs", "6", "--trainer.default_root_dir", str(inputs / folder), "--trainer.logger", "false", *more],
    ]


def signing(inputs: Path, folder: str, *more: str) -> list[str]:
    callback = {"keys": str(inputs / "keys"), "out": str(inputs / folder), "images_per_key": "20", "eps": "48/255"}
    pairs = [word for name, value in callback.items() for word in (f"--trainer.callbacks.{name}", value)]
    return ["--trainer.callbacks+", "TaggantSigning", *pairs, *more]


def verdict(inputs: Path, folder: str, accelerator: str) -> dict[str, object]:
    out = inputs / f"{folder}-{accelerator}"
    found = words(
        inputs, "test", f"{folder}-{accelerator}", "--trainer.accelerator", accelerator, "--trainer.callbacks+",
        "KeyDetection", "--trainer.callbacks.keys", str(inputs / "keys"),
        "--ckpt_path", str(inputs / folder / "checkpoints" / "last.ckpt"),
    )  # fmt: skip
    assert main(found) == 0
    record: dict[str, object] = json.loads((out / "detection.json").read_text())
    secret = json.loads((out / "secret" / "detection.secret.json").read_text())
    return {"log10_p": record["log10_p"], "ranks": secret["ranks"]}


def test_fit_sign_and_test_by_commands(inputs: Path) -> None:
    assert main(words(inputs, "fit", "alice", *signing(inputs, "signed"))) == 0
    signature = Signature.load(inputs / "signed")
    assert np.abs(np.stack(signature.steps)).max() <= 48
    assert signature.facts["cosine_mean"] > 0.3
    own = ["--data.signature", str(inputs / "signed"), "--seed_everything", "5"]
    assert main(words(inputs, "fit", "bob", *own, data="SignedDataModule")) == 0
    on_gpu, on_cpu = verdict(inputs, "bob", "gpu"), verdict(inputs, "bob", "cpu")
    assert on_gpu == on_cpu


@pytest.mark.parametrize("recipe", ["simple", "three_augment", "resized_crop"])
def test_signing_a_finished_training_is_repeatable(inputs: Path, recipe: str) -> None:
    assert main(words(inputs, "fit", "alice")) == 0
    last = str(inputs / "alice" / "checkpoints" / "last.ckpt")
    for folder in ("one", "two"):
        found = signing(inputs, folder, "--trainer.callbacks.snapshots", "[]", "--trainer.callbacks.augment", recipe)
        found += ["--ckpt_path", last, "--trainer.deterministic", "true"]
        assert main(words(inputs, "fit", f"after-{folder}", *found)) == 0
    one, two = Signature.load(inputs / "one"), Signature.load(inputs / "two")
    assert one.facts["cosine_mean"] > 0.3
    assert np.array_equal(np.stack(one.steps), np.stack(two.steps))


def test_training_is_repeatable(inputs: Path) -> None:
    for folder in ("one", "two"):
        assert main(words(inputs, "fit", folder, "--seed_everything", "3", "--trainer.deterministic", "true")) == 0
    a, b = (torch.load(inputs / f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in ("one", "two"))
    assert all(torch.equal(a[name], b[name]) for name in a)
