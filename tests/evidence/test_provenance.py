"""What a record says of its origin."""

import pytest

from taggant_lightning.evidence import provenance as module


def test_provenance_has_no_path_and_knows_the_machine() -> None:
    facts = module.provenance()
    assert facts["versions"]["torch"] != "absent"
    assert " x " in facts["hardware"]
    assert "/home" not in str(facts)


def test_absent_package_and_no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACKAGES", ("surely-no-such-package",))
    monkeypatch.setattr(module, "_commit", lambda: None)
    facts = module.provenance.__wrapped__()
    assert facts["versions"] == {"surely-no-such-package": "absent"}
    assert facts["commit"] is None
