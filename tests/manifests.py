"""Manifests as releases have them, for tests that write no release."""

from typing import Any

from taggant_lightning.methods.taggants.keys import KeySet


def whole_manifest(keys: KeySet, **more: Any) -> dict[str, Any]:
    """What a release's manifest says that matters to a claim."""
    classes = [str(label) for label in range(keys.num_classes)]
    said = {"format": "taggant-lightning/release/v2", "classes": classes, "num_images": 9, "hashes": "ab" * 32}
    return {**said, "statement": keys.header["statement"], "commitment": keys.commitment, **more}
