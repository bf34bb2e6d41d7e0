"""The perceptual distance LPIPS (Zhang et al., 2018) as a differentiable term, offline where its trunk lies in a file."""

import logging
import warnings
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taggant_lightning.errors import TaggantError

log = logging.getLogger(__name__)
Trunk = Literal["alex", "squeeze", "vgg"]
SMALLEST_SIDE = 64  # LPIPS was fitted on patches of 64 pixels; AlexNet fails below 31


class Perceptual(nn.Module):
    """LPIPS of a trunk, frozen, in evaluation mode.

    Args:
        trunk: `alex`, `squeeze` or `vgg`. The linear heads come with the lpips package.
        weights: File with the trunk's ImageNet weights as torchvision names them (`features.0.weight` …); `random` for an
            untrained trunk, of use in tests only; None lets torchvision find or download them.

    Raises:
        TaggantError: If the trunk is unknown, or the file is missing or belongs to another network.
    """

    def __init__(self, trunk: str = "alex", weights: str | None = None) -> None:
        super().__init__()
        import lpips

        if trunk not in get_args(Trunk):
            raise TaggantError(f"perceptual_trunk={trunk!r} is unknown; write one of {', '.join(get_args(Trunk))}")
        with warnings.catch_warnings():  # lpips calls torchvision with arguments that it deprecated
            warnings.filterwarnings("ignore", message=".*(pretrained|weights).*")
            try:
                self.lpips = lpips.LPIPS(net=trunk, pnet_rand=weights is not None, verbose=False)
            except OSError as error:
                raise TaggantError(
                    f"perceptual_weights=None, and the {trunk} trunk cannot be downloaded ({error}); write a file that holds it"
                ) from None
        if weights not in (None, "random"):
            _load_trunk(self.lpips.net, Path(str(weights)))
        self.eval().requires_grad_(False)
        self._told = False

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Return the distance of each pair.

        Args:
            images: (N, C, H, W) float in [0, 1], 1 or 3 channels; sides below 64 pixels are enlarged first.
            others: The same.

        Returns:
            (N,) float, 0 for equal images, differentiable with respect to both.
        """
        height, width = images.shape[-2:]
        scale = SMALLEST_SIDE / min(height, width)
        if scale > 1:
            if not self._told:
                log.info("LPIPS: images of %d×%d are enlarged to a side of %d", height, width, SMALLEST_SIDE)
                self._told = True
            size = (round(height * scale), round(width * scale))
            images, others = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (images, others))
        images, others = (x.expand(-1, 3, -1, -1) * 2 - 1 for x in (images, others))
        distance: Tensor = self.lpips(images, others)
        return distance.flatten()


def _load_trunk(net: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise TaggantError(f"perceptual_weights={path} is no file; write the trunk's weights as torchvision saves them")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a file it cannot read
        raise TaggantError(f"perceptual_weights={path} cannot be read ({type(error).__name__}); save a state dict") from None
    own = net.state_dict()
    # lpips cuts torchvision's `features` into slices and keeps the layer numbers: slice2.3.weight is features.3.weight.
    found = {name: stored.get("features." + name.split(".", 1)[1]) for name in own}
    if any(value is None or value.shape != own[name].shape for name, value in found.items()):
        raise TaggantError(
            f"perceptual_weights={path} belongs to another trunk; perceptual_trunk must name the one it was saved from"
        )
    net.load_state_dict(found)
