"""A short run of each fuzzer; `python -m tests.fuzz` runs one for as long as you like."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.targets import TARGETS, holds


@pytest.mark.slow
@pytest.mark.parametrize(("name", "examples"), [("recipe", 150), ("data", 60), ("checkpoint", 60)])
def test_no_input_crashes(name, examples, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    target = TARGETS[name](tmp_path)
    taken = []

    # The same inputs every time: `python -m tests.fuzz` is for finding new ones.
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def run(given):
        taken.append(holds(target, given))

    run()
    assert any(taken), "some inputs are whole"
    assert not all(taken), "and some are not"


@pytest.mark.parametrize("found", [b"{}", b'"MT19937"', b"null"])
def test_random_state_of_another_form_is_refused(found, tmp_path):
    """The fuzzer's own find."""
    target = TARGETS["checkpoint"](tmp_path)
    name = "run/state.json"
    whole = (target._whole / name).read_bytes()
    assert holds(target, (name, whole))
    damaged = whole.replace(b'{"$tensor": "random.numpy.1"}', found)
    assert damaged != whole
    assert not holds(target, (name, damaged))
