"""The control tells every planted mistake from the true way."""

import pytest

from tests.mutants import CASES

LEVEL = 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_control_tells_planted_mistakes(case) -> None:
    assert case.p(mutant=False) > LEVEL
    assert case.p(mutant=True) < LEVEL
