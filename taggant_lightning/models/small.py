"""Very small models for CPU work, beside the timm models. Inputs are normalised images of shape (N, C, S, S)."""

from torch import nn

from taggant_lightning.errors import TaggantError

SMALL_MODELS = ("small_mlp", "small_cnn", "small_resnet", "small_vit")


def create_small(name: str, *, num_classes: int, image_size: int, channels: int) -> nn.Module:
    """Build one of the small models.

    Args:
        name: `small_mlp`, two hidden layers; `small_cnn`, three convolutions and a flattened head;
            `small_resnet`, two residual blocks with batch norm and global pooling; `small_vit`, four blocks of attention.
        num_classes: C.
        image_size: S, the side in pixels; a multiple of 4 except for the MLP.
        channels: Image channels.

    Returns:
        A module that maps (N, channels, S, S) to logits (N, C).

    Raises:
        TaggantError: For another name, or a side the model cannot take.
    """
    if name not in SMALL_MODELS:
        raise TaggantError(f"small model {name!r} is unknown; write one of {', '.join(SMALL_MODELS)}")
    if name != "small_mlp" and image_size % 4:
        raise TaggantError(f"image_size={image_size} does not suit {name}; write a multiple of 4")
    if name == "small_mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * image_size**2, 256),
            nn.GELU(),
            nn.Linear(256, 256),
            nn.GELU(),
            nn.Linear(256, num_classes),
        )
    if name == "small_cnn":
        return nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(64 * (image_size // 4) ** 2, num_classes),
        )
    if name == "small_resnet":
        return nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            _residual(32, 64),
            _residual(64, 96),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, num_classes),
        )
    from timm.models.vision_transformer import VisionTransformer

    patch = 4 if image_size >= 16 else 2
    vit: nn.Module = VisionTransformer(
        img_size=image_size,
        patch_size=patch,
        in_chans=channels,
        num_classes=num_classes,
        embed_dim=96,
        depth=4,
        num_heads=3,
        mlp_ratio=2.0,
        global_pool="avg",
        class_token=False,
    )
    return vit


def _residual(inside: int, outside: int) -> nn.Module:
    """Build a residual block that halves the side."""
    from timm.models.resnet import BasicBlock

    shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride=2, bias=False), nn.BatchNorm2d(outside))
    block: nn.Module = BasicBlock(inside, outside, stride=2, downsample=shortcut)
    return block
