"""The list of `make mutants` keeps up with the code; the mutants themselves take minutes."""

import pytest

from tests.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.formula}")
def test_the_formula_is_there_to_be_broken(mutant):
    assert mutant.formula in (ROOT / "ebft" / mutant.file).read_text(encoding="utf-8")
