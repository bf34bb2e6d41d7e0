"""Norms of gradients in batches, against one image at a time."""

import logging
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from taggant_lightning import ImageClassifier
from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.resize import centre, fit
from taggant_lightning.data.sources import ArraySource, ImageSource
from taggant_lightning.gradients import layer_rules
from taggant_lightning.gradients.alignment import norm
from taggant_lightning.gradients.layer_rules import squared_products
from taggant_lightning.methods.taggants.crafting import gradient_norms as tested
from taggant_lightning.methods.taggants.crafting.gradient_norms import GradientNorms, gradient_norms
from taggant_lightning.methods.taggants.crafting.objective import Surrogate

CLASSES = 5


def source(side: int, count: int = 5) -> ArraySource:
    rng = np.random.default_rng(3)
    return ArraySource(rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8), np.arange(count) % CLASSES)


class Ragged(ImageSource):
    """Images of several shapes."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        rng = np.random.default_rng(4)
        self.images = [rng.integers(0, 256, (3, *shape), dtype=np.uint8) for shape in shapes]
        self.labels, self.classes = np.arange(len(shapes)) % CLASSES, [str(i) for i in range(CLASSES)]

    def pixels(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]

    def _identity(self) -> Any:
        return 0


def one_at_a_time(surrogate: Surrogate, of: ImageSource, ids: NDArray[np.int64], load: int, size: int) -> NDArray[np.float64]:
    """The slow twin."""

    def one(index: int) -> float:
        image = centre(fit(to_float(of.pixels(index))[None].to(surrogate.parameters[0]), load), size)
        return float(norm(surrogate.key_gradient(image, int(of.labels[index]))))

    return np.array([one(int(i)) for i in ids])


def check(
    model: nn.Module, side: int, rtol: float = 1e-4, parameters: list[nn.Parameter] | None = None, count: int = 5
) -> None:
    surrogate = Surrogate(model.eval(), list(model.parameters()) if parameters is None else parameters)
    of, ids = source(side, count), np.arange(count)[::-1]
    wanted = one_at_a_time(surrogate, of, ids, side, side)
    assert wanted.min() > 0
    np.testing.assert_allclose(gradient_norms(surrogate, of, ids, side, side), wanted, rtol=rtol)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Keep the plans that are made, and let `vmap` have what it may have on a GPU."""
    plans: list[Any] = []
    made = tested._plan

    def plan(*arguments: Any) -> Any:
        plans.append(made(*arguments))
        return plans[-1]

    monkeypatch.setattr(tested, "_plan", plan)
    monkeypatch.setattr(tested, "SLOW_TO_MAP", ())
    torch.manual_seed(0)
    return plans


OURS = {"small_cnn": 16, "small_resnet": 16, "small_vit": 16, "small_mlp": 8, "cifar_resnet18": 16}


@pytest.mark.parametrize("name", OURS)
def test_our_models(name: str, ways: list[Any]) -> None:
    check(ImageClassifier(name, num_classes=CLASSES, image_size=OURS[name], channels=3), OURS[name])
    assert not ways[0].single
    assert not ways[0].mapped  # nothing costs a second pass


VIT = {"img_size": 32, "patch_size": 4, "depth": 2}
SWIN = {"img_size": 32, "patch_size": 2, "depths": (2, 1), "num_heads": (2, 4), "embed_dim": 16, "window_size": 4}
TIMM: dict[str, tuple[str, int, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", 32, VIT),
    "deit3": ("deit3_small_patch16_224", 32, {**VIT, "init_values": 0.1}),
    "convnext": ("convnext_atto", 32, {"patch_size": 2, "ls_init_value": 0.1}),
    "swin": ("swin_tiny_patch4_window7_224", 32, SWIN),
    "efficientnet": ("efficientnet_lite0", 32, {}),
    "mobilenet": ("mobilenetv3_small_050", 32, {}),
}


@pytest.mark.parametrize("name", TIMM)
def test_models_of_timm(name: str, ways: list[Any]) -> None:
    called, side, options = TIMM[name]
    model = timm.create_model(called, num_classes=CLASSES, **options)
    # A dead net tells nothing: timm starts heads and last layers near zero.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    check(model, side)
    assert not ways[0].single
    if name in ("vit", "deit3"):
        assert not ways[0].mapped


class Classifier(nn.Module):
    """Something between images and a mean over places."""

    def __init__(self, inner: nn.Module, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner, self.head = inner, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(torch.tanh(self.stem(x))).mean((2, 3)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


class Around(nn.Module):
    """A layer that is called, and whose weight is used besides; another that is used without a call."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.quiet = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.called(x.permute(0, 2, 3, 1)) @ self.called.weight
        return self.quiet.forward(y).permute(0, 3, 1, 2)


class Raw(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.randn(6, 1, 1)), nn.Parameter(torch.randn(1, 6, 1, 1))
        self.idle = nn.Parameter(torch.randn(3))
        self.mixed = nn.Parameter(torch.randn(1, 6))  # (1, 6) as a vector: a copy an image is something else

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain * self.mixed.reshape(6, 1, 1) + self.shift


class SequenceFirst(nn.Module):
    """Places first, images second, and as many places as make the first dimension divisible."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.layer(x.flatten(2).permute(2, 0, 1)))
        return torch.tanh(y).permute(1, 2, 0).unflatten(2, x.shape[2:])


class Windows(nn.Module):
    """Quarters of images as images of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.stack([x[..., :4, :4], x[..., 4:, :4], x[..., :4, 4:], x[..., 4:, 4:]], 1).flatten(0, 1)
        return torch.tanh(self.norm(self.convolution(parts))).unflatten(0, (-1, 4)).mean(1)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        nn.init.uniform_(self.b.running_var, 0.5, 2)
        nn.init.normal_(self.b.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x).mul_(2).relu_())
        y += x
        return y


class ChannelsLast(nn.Module):
    """In the layout that convolutions of a GPU prefer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.norm(self.a(x.contiguous(memory_format=torch.channels_last)))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2).mT).mT.unflatten(2, x.shape[2:])


class Hooked(nn.Conv2d):
    """Of another class than its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-0.1, 0.1)


class Frozen(nn.Module):
    """What comes before has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.detach())


STRANGE = {
    "twice": Twice(), "tied": Tied(), "around": Around(), "raw": Raw(), "sequence first": SequenceFirst(), "windows": Windows(),
    "in place": InPlace(), "attention": Attention(), "channels last": ChannelsLast(),
    "subclass": Hooked(6, 6, 3), "frozen": Frozen(),
    "grouped": nn.Conv2d(6, 6, 3, padding=1, groups=3), "depthwise": nn.Conv2d(6, 6, (5, 3), padding=(2, 1), groups=6),
    "strided": nn.Conv2d(6, 6, 3, stride=(2, 3), padding=(1, 0)),
    "dilated": nn.Conv2d(6, 6, 3, dilation=(2, 1), padding="same"),
    "even kernel": nn.Conv2d(6, 6, 2, padding="same"), "valid": nn.Conv2d(6, 6, (3, 2), padding="valid"),
    "reflecting": nn.Conv2d(6, 6, 3, padding=(1, 2), padding_mode="reflect"), "wide": nn.Conv2d(6, 6, 7, padding=3),
    "circular": nn.Conv2d(6, 6, 3, padding=2, padding_mode="circular"), "transposed": nn.ConvTranspose2d(6, 6, 3),
    "norms": nn.Sequential(nn.GroupNorm(3, 6), nn.Tanh(), nn.LayerNorm((6, 8, 8)), nn.InstanceNorm2d(6, affine=True)),
    "spectral": nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 6, 3)),
    "standardised": timm.layers.StdConv2d(6, 6, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_strange_models_in_float64(name: str, ways: list[Any]) -> None:
    model = Classifier(STRANGE[name]).double()
    if name == "frozen":
        check(model, 8, 1e-9, list(model.inner.parameters()))
    else:
        check(model, 8, 1e-9)
    assert not ways[0].single


def test_a_cpus_own_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_rules, "FEW_INPUTS", 0)
    for name in ("strided", "dilated", "even kernel", "reflecting"):
        check(Classifier(STRANGE[name]).double(), 8, 1e-9)


def test_some_of_the_parameters(ways: list[Any]) -> None:
    model = ImageClassifier("small_vit", num_classes=CLASSES, image_size=16, channels=3)
    for part in ("bias", "weight", "blocks.1", "pos_embed", "head"):
        check(model, 16, parameters=[p for name, p in model.named_parameters() if part in name])
    assert [plan.single or bool(plan.mapped) for plan in ways] == [False] * 5


def test_a_parameter_that_is_not_the_models(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))
    with caplog.at_level(logging.INFO):
        check(model, 8, parameters=[*model.parameters(), nn.Parameter(torch.ones(2))])
    assert "one image at a time: a parameter is not the model's, or given twice" in caplog.text


class OwnPrecision(nn.Module):
    """Cannot be asked in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.float())


def test_a_model_that_knows_one_precision(ways: list[Any]) -> None:
    check(Classifier(OwnPrecision()), 8)
    assert not ways[0].single
    assert not ways[0].mapped


def test_kernels_that_only_vmap_could_take(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check(Classifier(Twice()).double(), 8, 1e-9)
    assert "gradient norms one image at a time: `vmap` over some of its parameters would take longer" in caplog.text


class OfTheBatch(nn.Module):
    """Centres by the mean over images, as batch norm does in training; alone, an image is centred by its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean((0, 2, 3), keepdim=True) / 2


class ByTheBatch(nn.Module):
    """Reads a value: `vmap` cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * 2 if x.mean().item() > 0 else x * 3) + len(x)


def test_images_that_mix_are_seen(ways: list[Any]) -> None:
    check(Classifier(OfTheBatch()).double(), 8, 1e-9)
    assert len(ways[0].mapped) == 4  # alone under vmap


@pytest.mark.parametrize("inner", [nn.BatchNorm2d(6, track_running_stats=False), ByTheBatch()], ids=["batch norm", "value"])
def test_falls_back_to_one_at_a_time(inner: nn.Module, ways: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check(Classifier(nn.Sequential(inner, OfTheBatch(), Raw(), nn.Tanh(), ByTheBatch())).double(), 8, 1e-9)
    assert ways[0].single
    assert "gradient norms one image at a time: in a batch they come out otherwise" in caplog.text


def test_a_batch_that_takes_another_way(caplog: pytest.LogCaptureFixture) -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            y = x.permute(0, 2, 3, 1)
            parts = [y] if len(x) <= 2 else [y[:2], y[2:]]
            return torch.tanh(torch.cat([self.layer(part) for part in parts])).permute(0, 3, 1, 2)

    with caplog.at_level(logging.INFO):
        check(Classifier(Late()).double(), 8, 1e-9)
    assert "gradient norms of a batch one image at a time: it took another way" in caplog.text


def test_ragged_sizes_and_batches() -> None:
    torch.manual_seed(0)
    model = ImageClassifier("small_resnet", num_classes=CLASSES, image_size=16, channels=3).eval()
    surrogate = Surrogate(model, list(model.parameters()))
    of = Ragged([(20, 20), (31, 24), (20, 20), (16, 40), (24, 31), (20, 20), (50, 33)])
    ids = np.array([6, 0, 3, 1, 2, 5, 4])
    wanted = one_at_a_time(surrogate, of, ids, 20, 16)
    for batch in (1, 3, 64, None):
        np.testing.assert_allclose(gradient_norms(surrogate, of, ids, 20, 16, batch), wanted, rtol=1e-5)
    assert gradient_norms(surrogate, of, ids[:0], 20, 16).shape == (0,)


def test_a_plan_is_made_once(ways: list[Any]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES)).eval()
    surrogate, of = Surrogate(model, list(model.parameters())), source(8)
    score = GradientNorms(surrogate, of, 8, 8, 2)
    halves = np.concatenate([score(np.arange(2)), score(np.arange(2, 5))])
    assert len(ways) == 1
    np.testing.assert_allclose(halves, one_at_a_time(surrogate, of, np.arange(5), 8, 8), rtol=1e-5)


def test_batches_follow_the_side_and_the_users_bound() -> None:
    model = nn.Linear(1, 1)
    surrogate, of = Surrogate(model, list(model.parameters())), source(8)
    sizes = [GradientNorms(surrogate, of, side, side, bound).micro_batch for side in (32, 112, 224, 448) for bound in (None, 8)]
    assert sizes == [32, 8, 16, 8, 4, 4, 4, 4]


def test_small_buffers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_rules, "BUFFER", {"cpu": 1})
    check(Classifier(nn.Sequential(STRANGE["grouped"], Raw())).double(), 8, 1e-9)


def test_model_and_settings_are_left_as_they_were() -> None:
    model = ImageClassifier("small_vit", num_classes=CLASSES, image_size=16, channels=3).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        gradient_norms(Surrogate(model, list(model.parameters())), source(16), np.arange(3), 16, 16)
        assert not torch.is_grad_enabled()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("ins", "places", "outs"), [(7, 1, 5), (7, 2, 5), (7, 30, 5), (1, 9, 1)])
def test_squared_products(ins: int, places: int, outs: int) -> None:
    a, g = torch.randn(4, ins, places, dtype=torch.float64), torch.randn(4, outs, places, dtype=torch.float64)
    torch.testing.assert_close(squared_products(a, g), torch.einsum("mit,mot->mio", a, g).square().sum((1, 2)))
