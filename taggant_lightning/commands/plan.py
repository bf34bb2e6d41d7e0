"""`taggant plan`: FLOPs, bytes, memory and hours of signing, training and detection, before any of it is run."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_paths
from taggant_lightning.planning.request import PRESETS, parse_options, request_of

if TYPE_CHECKING:
    from taggant_lightning.planning.report import Plan

_EPILOG = """examples:
  taggant plan --preset imagenet-vit-s --device a100 --devices 1 8 64
  taggant plan --images 60000 --image-size 32 --num-classes 10 --model cifar_resnet18 --epochs 100 --devices 1
  taggant plan --preset cifar100-vit-tiny --images-per-key 200 --json plan.json

The model's steps are run on one to three random images to count FLOPs, bytes and kernels (seconds to a minute on a CPU).
Hours are these counts times a device's rates: fitted for `cpu`, assumed shares of published peaks for GPUs. Steps that were
measured with the same model on the same kind of GPU are taken in place of that, and marked.
docs/scaling.md tells how well that predicts measured steps.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taggant plan",
        description="Tell what signing, training and detection will cost.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--preset", metavar="NAME", help=f"start from {', '.join(PRESETS)}; the other options replace its values"
    )
    data = parser.add_argument_group("dataset")
    data.add_argument("--images", type=int, metavar="N", help="images of the dataset (50,000)")
    data.add_argument("--image-size", type=int, metavar="S", help="side in pixels, stored and seen by the model (32)")
    data.add_argument("--channels", type=int, metavar="C", help="channels of an image (3)")
    data.add_argument("--num-classes", type=int, metavar="C", help="number of classes (100)")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", metavar="NAME", help="model_name of ImageClassifier: small_cnn, cifar_resnet18, any timm model … (small_cnn)"
    )
    model.add_argument("--model-kwargs", metavar="JSON", help="""further arguments of timm's model, as '{"patch_size": 4}'""")
    signing = parser.add_argument_group("signing (names of TaggantSigning)")
    signing.add_argument("--num-keys", type=int, metavar="K", help="number of keys (10)")
    signing.add_argument("--images-per-key", type=int, metavar="N", help="images that sign for one key (100)")
    signing.add_argument("--steps", type=int, metavar="N", help="crafting steps a key (100)")
    signing.add_argument("--restarts", type=int, metavar="N", help="independent starts a key (1)")
    signing.add_argument(
        "--surrogates", type=int, metavar="N", help="models crafted against: the trained one and its snapshots (3)"
    )
    signing.add_argument(
        "--micro-batch", type=int, metavar="N", help="signing images a chunk; memory follows it (32; on a GPU more small ones)"
    )
    signing.add_argument("--selection", metavar="HOW", help="gradient_norm or random (gradient_norm)")
    signing.add_argument("--derivative", metavar="HOW", help="auto, exact or difference (auto)")
    training = parser.add_argument_group("training, of a surrogate or of a suspect")
    training.add_argument("--epochs", type=int, metavar="N", help="epochs (100)")
    training.add_argument("--batch-size", type=int, metavar="N", help="images a step over all devices (128)")
    devices = parser.add_argument_group("devices")
    devices.add_argument("--device", metavar="KIND", help="a100, h100, h200, or cpu: one core (h100)")
    devices.add_argument("--devices", type=int, nargs="+", metavar="N", help="numbers of devices, one column each (1 8 64)")
    parser.add_argument("--json", metavar="FILE", help="write the figures too")
    return parser


def run(words: list[str]) -> None:
    """Run `taggant plan`."""
    arguments = _parser().parse_args(words[1:])
    given_paths(arguments, "json")
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    preset, file = given.pop("preset", None), given.pop("json", None)
    if "model_kwargs" in given:
        given["model_kwargs"] = parse_options(given["model_kwargs"])
    if "devices" in given:
        given["devices"] = tuple(sorted(set(given["devices"])))
    request = request_of(preset, given)
    if file is not None and not Path(file).parent.is_dir():
        raise TaggantError(f"json={file} lies in no folder that exists; write a path in one that does")
    from taggant_lightning.planning.report import as_json, plan, text

    made: Plan = plan(request)
    print(text(made))
    if file is not None:
        figures: dict[str, Any] = as_json(made)
        Path(file).write_text(json.dumps(figures, indent=1) + "\n")
