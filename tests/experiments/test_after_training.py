"""After-training steps: what they do to the weights, that `taggant test` takes what they write, and what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.steps import average, compress
from taggant_lightning import ImageClassifier
from taggant_lightning.adversary import compression
from taggant_lightning.adversary.distillation import Distillation, soft_loss
from taggant_lightning.cli import main
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.checkpoints import write_classifier
from taggant_lightning.models.classifier import load_classifier
from taggant_lightning.models.weights import read_weights
from tests.conftest import write_tiny

SHAPE = {"num_classes": 3, "image_size": 8, "channels": 3}
STEPS = {
    "prune": (compress.main, ["--share", "0.5"]),
    "quantise": (compress.main, ["--bits", "8"]),
    "average": (average.main, []),
}


def model(seed: int = 0, name: str = "small_resnet", **more: object) -> ImageClassifier:
    torch.manual_seed(seed)
    return ImageClassifier(name, **{**SHAPE, **more})


def saved(path: Path, seed: int = 0, name: str = "small_resnet", **more: object) -> str:
    write_classifier(model(seed, name, **more), path)
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Write tiny data of three classes, 8×8, and a configuration of it."""
    write_tiny(tmp_path / "tiny.npz", size=8)
    content = {"data": {"source": "npz", "root": str(tmp_path / "tiny.npz"), "batch_size": 16}}
    (tmp_path / "data.yaml").write_text(json.dumps(content))
    return str(tmp_path / "data.yaml")


def words(step: str, folder: Path, config: str) -> list[str]:
    """Return the words of a step on a fresh checkpoint."""
    first = saved(folder / "a.ckpt", 0)
    given = ["--checkpoint", first, *STEPS[step][1]]
    return [*given, "--checkpoint", saved(folder / "b.ckpt", 1)] if step == "average" else given


@pytest.mark.parametrize("step", STEPS)
def test_taggant_test_takes_what_a_step_writes(
    step: str, tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(step, tmp_path, config)
    for place in ("one", "two"):
        STEPS[step][0]([*given, "--out", str(tmp_path / place)])
    written = tmp_path / "one" / "model.ckpt"
    assert f"checkpoint={written}" in capsys.readouterr().out
    first, second = (load_classifier(tmp_path / place / "model.ckpt").state_dict() for place in ("one", "two"))
    assert all(torch.equal(first[name], second[name]) for name in first)  # nothing is drawn
    assert read_weights(written)  # as fine-tuning does
    asked = [
        "--model",
        "ImageClassifier",
        "--model.model_name",
        "small_resnet",
        "--config",
        config,
        "--ckpt_path",
        str(written),
    ]
    run = ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    assert main(["test", *asked, *run]) == 0
    assert "test/acc" in capsys.readouterr().out


def test_prune(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "a.ckpt")
    compress.main(["--checkpoint", checkpoint, "--share", "0.3", "--out", str(tmp_path)])
    before, after = load_classifier(checkpoint).state_dict(), load_classifier(tmp_path / "model.ckpt").state_dict()
    assert list(before) == list(after)
    pruned = [name for name in before if name.endswith("weight") and before[name].ndim > 1]
    old, new = (torch.cat([state[name].flatten() for name in pruned]) for state in (before, after))
    zeros = new == 0
    assert int(zeros.sum()) == round(0.3 * len(old))
    assert old[zeros].abs().max() <= old[~zeros].abs().min()
    assert torch.equal(old[~zeros], new[~zeros])
    assert all(torch.equal(before[name], after[name]) for name in before if name not in pruned)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantise(tmp_path: Path, bits: int) -> None:
    checkpoint = saved(tmp_path / "a.ckpt")
    compress.main(["--checkpoint", checkpoint, "--bits", str(bits), "--out", str(tmp_path)])
    before, after = load_classifier(checkpoint).state_dict(), load_classifier(tmp_path / "model.ckpt").state_dict()
    largest = 2 ** (bits - 1) - 1
    for name, old in before.items():
        new = after[name]
        if old.ndim < 2:
            assert torch.equal(old, new)
            continue
        for channel, rounded in zip(old.numpy().reshape(len(old), -1), new.numpy().reshape(len(new), -1), strict=True):
            step = np.abs(channel).max() / largest
            assert np.allclose(rounded / step, np.rint(rounded / step), atol=1e-3)
            assert np.abs(rounded - channel).max() <= 0.5 * step * 1.001
            assert np.abs(rounded).max() == pytest.approx(np.abs(channel).max(), rel=1e-6)


def test_a_channel_of_zeros_stays_one() -> None:
    layer = torch.nn.Linear(4, 2)
    torch.nn.init.zeros_(layer.weight)
    compression.quantise(layer, 8)
    assert not layer.weight.any()


def test_average(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"{seed}.ckpt", seed) for seed in (0, 1)]
    given = [word for name in names for word in ("--checkpoint", name)]
    average.main([*given, "--weight", "3", "--weight", "1", "--out", str(tmp_path)])
    first, second, mean = (load_classifier(name).state_dict() for name in (*names, tmp_path / "model.ckpt"))
    for name, value in mean.items():
        wanted = 0.75 * first[name] + 0.25 * second[name] if value.is_floating_point() else first[name]
        assert torch.allclose(value, wanted, atol=1e-7), name


def test_soft_loss_is_the_divergence() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 5, 4))
    p, q = (np.exp(x / 2) / np.exp(x / 2).sum(axis=1, keepdims=True) for x in (teacher, student))
    wanted = 4 * (p * (np.log(p) - np.log(q))).sum(axis=1).mean()
    assert soft_loss(torch.tensor(student), torch.tensor(teacher), 2.0).item() == pytest.approx(wanted, rel=1e-9)
    assert soft_loss(torch.tensor(teacher), torch.tensor(teacher), 2.0).item() == pytest.approx(0, abs=1e-12)


def distil(folder: Path, config: str, teacher: str, *more: str) -> Path:
    """Train a student by `taggant fit`, and return its checkpoint."""
    run = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(folder), "--trainer.max_epochs", "1"]
    assert main(["fit", "--config", config, *run, "--model", "Distillation", "--model.teacher", teacher, *more]) == 0
    return folder / "checkpoints" / "last.ckpt"


def test_a_student_learns_its_teachers_answers(tmp_path: Path, config: str) -> None:
    # The teacher is not trained, so its answers have nothing to do with the labels.
    teacher = saved(tmp_path / "teacher.ckpt", name="small_cnn")
    images = torch.from_numpy(np.load(tmp_path / "tiny.npz")["train_x"]).float() / 255
    gaps = []
    for epochs in ("1", "30"):
        recipe = ["--model.model_name", "small_mlp", "--model.lr", "0.003", "--trainer.max_epochs", epochs]
        checkpoint = distil(tmp_path / epochs, config, teacher, *recipe, "--data.batch_size", "8")
        student = load_classifier(checkpoint)
        with torch.no_grad():
            gaps.append(soft_loss(student(images), load_classifier(teacher)(images), 1.0).item())
    assert gaps[1] < 0.5 * gaps[0]
    assert student.arguments["model_name"] == "small_mlp"
    assert not any("teacher" in name for name in torch.load(checkpoint, weights_only=True)["state_dict"])


def test_a_student_is_a_plain_classifier(tmp_path: Path, config: str) -> None:
    teacher = saved(tmp_path / "teacher.ckpt")
    checkpoint = distil(tmp_path / "run", config, teacher, "--model.model_name", "small_mlp+small_cnn")
    assert load_classifier(checkpoint).arguments["model_name"] == "small_mlp+small_cnn"
    plain = ["--model", "ImageClassifier", "--model.model_name", "small_mlp+small_cnn", "--ckpt_path", str(checkpoint)]
    run = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["test", "--config", config, *run, *plain]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model.temperature", "0"], "temperature=0.0 must be above 0"),
        (["--model.teacher", "none.ckpt"], "checkpoint none.ckpt does not exist"),
        (["--data.image_size", "4"], "has image_size=8 and the data 4; use the data it was trained on"),
    ],
)
def test_a_student_that_cannot_learn(
    more: list[str], message: str, tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = saved(tmp_path / "teacher.ckpt")
    run = ["--config", config, "--trainer.default_root_dir", str(tmp_path / "run"), "--model", "Distillation"]
    assert main(["fit", *run, "--model.teacher", teacher, *more]) == 2
    assert message in capsys.readouterr().err


def refused(step: Callable[[list[str]], None], given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        step(given)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "more", "message"),
    [
        ("prune", ["--share", "1"], "share=1.0 must lie in [0, 1)"),
        ("prune", ["--share", "nan"], "share=nan must lie in [0, 1)"),
        ("quantise", ["--bits", "1"], "bits=1 must lie in 2..16"),
        ("quantise", ["--checkpoint", "none.ckpt"], "checkpoint none.ckpt does not exist"),
        ("average", ["--weight", "1"], "weight: 1 are given for 2 checkpoints; write one for each, or none"),
        ("average", ["--weight", "1", "--weight", "-1"], "weight=[1.0, -1.0] must be at least 0"),
        ("average", ["--weight", "0", "--weight", "0"], "must be at least 0 and not all 0"),
    ],
)
def test_refusals(
    step: str, more: list[str], message: str, tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*words(step, tmp_path, config), *more, "--out", str(tmp_path / "out")]
    assert message in refused(STEPS[step][0], given, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", STEPS)
def test_a_step_overwrites_nothing_it_reads(step: str, tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(step, tmp_path, config)
    first = (tmp_path / "a.ckpt").rename(tmp_path / "model.ckpt")
    given = [str(first) if word.endswith("a.ckpt") else word for word in given]
    before = first.read_bytes()
    assert "would overwrite the checkpoint" in refused(STEPS[step][0], [*given, "--out", str(tmp_path)], capsys)
    assert first.read_bytes() == before
    assert "is a file; name a folder" in refused(STEPS[step][0], [*given, "--out", config], capsys)


def test_averages_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = ["--checkpoint", saved(tmp_path / "a.ckpt"), "--out", str(tmp_path)]
    assert "an average needs at least 2 models and 1 is given" in refused(average.main, one, capsys)
    other = ["--checkpoint", saved(tmp_path / "b.ckpt", name="small_mlp")]
    assert "the models have different architectures" in refused(average.main, [*one, *other], capsys)
    with pytest.raises(TaggantError, match="model=ReLU has no convolution and no linear layer"):
        compression.prune_by_magnitude(torch.nn.ReLU(), 0.5)


@pytest.mark.parametrize("step", STEPS)
def test_help_teaches(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        STEPS[step][0](["--help"])
    assert stop.value.code == 0
    file = "average" if step == "average" else "compress"
    assert f"python experiments/steps/{file}.py --" in capsys.readouterr().out


def test_a_students_checkpoint_holds_no_teacher(tmp_path: Path) -> None:
    teacher = saved(tmp_path / "teacher.ckpt")
    student = Distillation(teacher, model_name="small_mlp", **SHAPE)
    assert set(student.state_dict()) == set(model(name="small_mlp").state_dict())
    assert not student._teacher[0].training
    student.train()
    assert not student._teacher[0].training
