"""DataModules: order, augmentation, resume, subsets, wrong inputs."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from taggant_lightning import ImageClassifier, ImageDataModule, SignedDataModule
from taggant_lightning.data.sampler import SeededSampler
from taggant_lightning.errors import TaggantError
from taggant_lightning.streams import uniforms
from tests.conftest import write_tiny


def trainer(folder: Path, epochs: int, *callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=str(folder),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


class Recorder(pl.Callback):
    """Keeps the training batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: tuple, batch_idx: int) -> None:
        self.batches.append(tuple(t.clone() for t in batch))


def model(data: ImageDataModule) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier("small_mlp", num_classes=data.num_classes, image_size=data.image_size, channels=data.channels)


@pytest.mark.parametrize(("workers", "augment"), [(0, "simple"), (1, "simple"), (0, "cutout"), (0, "auto_augment")])
def test_resumed_equals_uninterrupted(tiny_npz: Path, tmp_path: Path, workers: int, augment: str) -> None:
    def data() -> ImageDataModule:
        return ImageDataModule("npz", str(tiny_npz), batch_size=16, augment=augment, num_workers=workers, seed=5)

    whole = Recorder()
    straight = model(data())
    trainer(tmp_path / "whole", 4, whole).fit(straight, datamodule=data())

    first, second = Recorder(), Recorder()
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", every_n_epochs=2, save_top_k=-1)
    begun = model(data())
    # The schedule must know of all four epochs: stop a four-epoch run after two.
    early = trainer(tmp_path / "half", 4, first, saving, StopAfter(2))
    early.fit(begun, datamodule=data())
    checkpoint = next((tmp_path / "ckpt").glob("*.ckpt"))
    resumed = model(data())
    trainer(tmp_path / "half", 4, second).fit(resumed, datamodule=data(), ckpt_path=checkpoint, weights_only=True)

    pairs = list(zip(first.batches + second.batches, whole.batches, strict=True))
    assert len(pairs) == 16
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), straight.parameters(), strict=True))


def test_resumed_within_an_epoch(tiny_npz: Path, tmp_path: Path) -> None:
    def run(name: str, *callbacks: pl.Callback, checkpoint: Path | None = None) -> ImageClassifier:
        pl.seed_everything(4, verbose=False)
        data = ImageDataModule("npz", str(tiny_npz), batch_size=16, augment="simple", seed=5)
        classifier = model(data)
        classifier.model.insert(1, torch.nn.Dropout(0.3))
        t = trainer(tmp_path / name, 3, *callbacks)
        t.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return classifier

    class Killed(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 7:
                raise RuntimeError("killed")

    whole = run("whole")
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=6, save_top_k=-1)
    with pytest.raises(RuntimeError, match="killed"):
        run("killed", saving, Killed())
    recorder = Recorder()
    resumed = run("killed", recorder, checkpoint=next((tmp_path / "ckpt").glob("*step=6.ckpt")))
    assert len(recorder.batches) == 6
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


class StopAfter(pl.Callback):
    """Stops as a kill between epochs would."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def test_epochs_differ_and_each_image_comes_once(tiny_npz: Path, tmp_path: Path) -> None:
    data = ImageDataModule("npz", str(tiny_npz), batch_size=60)
    recorder = Recorder()
    trainer(tmp_path, 2, recorder).fit(model(data), datamodule=data)
    first, second = (images.flatten(1) for images, _ in recorder.batches)
    assert not torch.equal(first, second)
    assert torch.equal(torch.unique(first, dim=0), torch.unique(second, dim=0))
    assert len(torch.unique(first, dim=0)) == 60


@pytest.mark.parametrize("pad", [True, False])
def test_sampler_shares_out_positions(monkeypatch: pytest.MonkeyPatch, pad: bool) -> None:
    seen = []
    for rank in range(3):
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda group=None: 3)
        monkeypatch.setattr("torch.distributed.get_rank", lambda group=None, rank=rank: rank)
        sampler = SeededSampler(10, seed=1, shuffle=True, pad=pad)
        sampler.set_epoch(4)
        positions = list(sampler)
        assert len(positions) == len(sampler) == (4 if pad or rank == 0 else 3)
        seen += positions
    assert sorted(set(seen)) == list(range(10))
    assert len(seen) == (12 if pad else 10)


def test_subsets(tiny_npz: Path) -> None:
    half = ImageDataModule("npz", str(tiny_npz), train_subset=0.5, val_subset=7)
    assert len(half.train_data) == 30
    assert len(half.val_data) == 7
    assert (half.train_indices[1:] > half.train_indices[:-1]).all()
    other = ImageDataModule("npz", str(tiny_npz), train_subset=0.5, subset_seed=1)
    assert half.train_indices.tolist() != other.train_indices.tolist()
    assert len(ImageDataModule("npz", str(tiny_npz), train_subset=1.0).train_data) == 60
    assert len(ImageDataModule("npz", str(tiny_npz), train_subset=1).train_data) == 1
    assert len(ImageDataModule("npz", str(tiny_npz), train_subset=20.0).train_data) == 20


@pytest.mark.parametrize("wanted", [0, 61, 0.0, 1.5, -3])
def test_impossible_subset(tiny_npz: Path, wanted: float) -> None:
    with pytest.raises(TaggantError, match=rf"train_subset={wanted} does not suit 60 images; write a count of 1\.\.60"):
        _ = ImageDataModule("npz", str(tiny_npz), train_subset=wanted).train_indices


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"image_size": 0}, "image_size=0 must be at least 1"),
        ({"image_size": 8, "load_size": 7}, "load_size=7 must be at least image_size=8"),
        ({"load_size": 8}, "load_size=8 must be at least image_size=None"),
        ({"augment": "wild"}, "augment='wild' is unknown"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        ImageDataModule(**arguments)


def test_splits_with_different_classes(tmp_path: Path) -> None:
    from tests.data.test_sources import write_folder

    write_folder(tmp_path)
    (tmp_path / "test" / "class2").rename(tmp_path / "test" / "other")
    with pytest.raises(TaggantError, match="the splits have different classes"):
        ImageDataModule("imagefolder", str(tmp_path)).setup("fit")


def test_signed_data_wants_one_of_two() -> None:
    for arguments in ({}, {"signature": "a", "release": "b"}):
        with pytest.raises(TaggantError, match="write exactly one of the two"):
            SignedDataModule(**arguments)


def test_fraction_of_a_release_is_refused() -> None:
    with pytest.raises(TaggantError, match="train_subset=0.5 is a fraction, and the release may be a subset already"):
        SignedDataModule(release="r", train_subset=0.5)


def test_grey_and_large_images(tmp_path: Path) -> None:
    write_tiny(tmp_path / "grey.npz", size=10, channels=1)
    data = ImageDataModule("npz", str(tmp_path / "grey.npz"), image_size=8)
    assert (data.channels, data.image_size, data.num_classes) == (1, 8, 3)
    assert data.train_data[0][0].shape == (1, 1, 8, 8)


def test_images_that_fit_lie_on_the_device_and_others_stream(tiny_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(**arguments: object) -> tuple[str, list[tuple[torch.Tensor, ...]]]:
        data = ImageDataModule("npz", str(tiny_npz), batch_size=16, seed=3, **arguments)
        loader = data.train_dataloader()
        return type(loader).__name__, list(loader)

    kind, resident = batches()
    assert kind == "ResidentLoader"
    kind, streamed = batches(on_device=False)
    assert kind == "LazyDataLoader"
    room = ImageDataModule("npz", str(tiny_npz)).train_data.bytes - 1
    monkeypatch.setattr("taggant_lightning.data.resident.IN_MEMORY_BYTES", room)
    assert batches()[0] == "LazyDataLoader"
    assert batches(on_device=True)[0] == "ResidentLoader"
    assert [len(labels) for _, labels, _ in resident] == [16, 16, 16, 12]
    for mine, other in zip(resident, streamed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


def test_numbers_of_an_image_follow_from_seed_epoch_and_position(tiny_npz: Path) -> None:
    data = ImageDataModule("npz", str(tiny_npz), augment="three_augment", seed=3)
    numbers = data.augmentation(2, torch.device("cpu"))
    assert numbers.shape == (60, 8)
    assert torch.equal(numbers, data.augmentation(2, torch.device("cpu")))
    assert not torch.equal(numbers, data.augmentation(3, torch.device("cpu")))
    assert torch.equal(numbers[[41]], uniforms(3, "augment", torch.tensor([41]), 8, 2))


def test_on_device_is_for_the_plain_backend() -> None:
    with pytest.raises(TaggantError, match="on_device=True is for backend=torch; backend=ffcv streams from its file"):
        ImageDataModule(backend="ffcv", on_device=True)


def test_any_model_gets_contiguous_images(tiny_npz: Path, tmp_path: Path) -> None:
    """Those that ask for channels last get that."""

    class Plain(pl.LightningModule):
        takes_channels_last = False

        def __init__(self, data: ImageDataModule) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(data.channels * data.image_size**2, data.num_classes)
            self.seen: list[torch.Tensor] = []

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
            self.seen.append(batch[0])
            images = batch[0] if self.takes_channels_last else batch[0].view(len(batch[0]), -1)  # as many models are written
            return torch.nn.functional.cross_entropy(self.layer(images.flatten(1)), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    seen = []
    for wanted in (False, True):
        for augment in ("none", "simple", "three_augment"):
            data = ImageDataModule("npz", str(tiny_npz), augment=augment)
            module = Plain(data)
            module.takes_channels_last = wanted
            trainer(tmp_path, 1).fit(module, datamodule=data)
            assert module.seen[0].is_contiguous(memory_format=torch.channels_last if wanted else torch.contiguous_format)
            seen.append(module.seen[0])
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))


@pytest.mark.parametrize("on_device", [True, False])
def test_overfitting_a_batch_takes_the_same_one_each_epoch(tiny_npz: Path, tmp_path: Path, on_device: bool) -> None:
    data, recorder = ImageDataModule("npz", str(tiny_npz), batch_size=16, on_device=on_device), Recorder()
    run = trainer(tmp_path, 3, recorder)
    run.overfit_batches = 1
    run.limit_train_batches = 1
    run.fit(model(data), datamodule=data)
    assert len(recorder.batches) == 3
    assert all(torch.equal(images, recorder.batches[0][0]) for images, _ in recorder.batches)


def test_images_are_decoded_once_for_all_stages(tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageDataModule("npz", str(tiny_npz))
    decoded: list[int] = []
    image = type(data.train_data).image
    monkeypatch.setattr(type(data.train_data), "image", lambda self, p: (decoded.append(p), image(self, p))[1])
    run, module = trainer(tmp_path, 1), model(data)
    run.fit(module, datamodule=data)
    before = len(decoded)
    monkeypatch.setattr("taggant_lightning.data.resident.IN_MEMORY_BYTES", 0)  # as a device that has filled since
    run.test(module, datamodule=data, verbose=False)
    run.validate(module, datamodule=data, verbose=False)
    assert len(decoded) - before < 10  # sizes are asked of the first image


def test_a_device_without_room_is_told_in_a_sentence(tiny_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    data = ImageDataModule("npz", str(tiny_npz), on_device=True)
    monkeypatch.setattr(type(data.train_data), "whole", full)
    with pytest.raises(
        TaggantError, match="on_device=True: cpu has no room for 0.0 GiB of images; write --data.on_device false"
    ):
        data.train_dataloader()


def test_what_bounds_streaming(tiny_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageDataModule("npz", str(tiny_npz), num_workers=2)
    monkeypatch.setattr("taggant_lightning.data.resident.IN_MEMORY_BYTES", 0)
    data.train_dataloader()
    assert data.slowed_by.startswith("images are decoded by 2 loader processes, as 0.0 GiB do not fit on the device: write")
    data.on_device = True
    data.train_dataloader()
    assert data.slowed_by == ""
