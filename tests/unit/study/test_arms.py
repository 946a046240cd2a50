"""From a study's options to its arms: which there are, and what they are called."""

from pathlib import Path

import pytest

from ebft.errors import UserError
from ebft.study.arms import arms, factors, levels, short_names
from ebft.study.options import StudyOptions


def study(**options):
    return StudyOptions(
        recipe="study", output_dir=Path("out"), **{"base_recipe": Path("base.yaml"), **options}
    )


def labels(**options):
    return [arm.label for arm in arms(study(**options))]


def test_without_factors_there_is_the_base():
    assert labels() == ["base"]


def test_a_grid_has_every_combination():
    found = arms(study(grid={"sampler.n": [2, 4], "reward.diversity": [0, 1]}))
    assert [arm.label for arm in found] == [
        "n=2, diversity=0", "n=2, diversity=1", "n=4, diversity=0", "n=4, diversity=1",
    ]  # fmt: skip
    assert found[1].name.levels == {"sampler.n": "2", "reward.diversity": "1"}
    assert found[1].overrides == [("sampler.n", 2), ("reward.diversity", 1)]


def test_one_at_a_time_starts_from_the_reference():
    assert labels(one_at_a_time={"sampler.n": [2, 8], "objective.gamma": [0]}) == [
        "reference", "n=2", "n=8", "gamma=0",
    ]  # fmt: skip


def test_variants_multiply_and_overrides_come_in_order():
    found = arms(
        study(
            overrides={"training.steps": 5},
            variants={
                "SFT": {"base_recipe": Path("sft.yaml")},
                "EBFT": {"overrides": {"training.steps": 6}},
            },
            grid={"sampler.n": [2]},
        )
    )
    assert [arm.label for arm in found] == ["SFT, n=2", "EBFT, n=2"]
    assert [str(arm.base) for arm in found] == ["sft.yaml", "base.yaml"]
    assert found[1].overrides == [("training.steps", 5), ("training.steps", 6), ("sampler.n", 2)]


def test_values_that_are_sections_have_short_labels():
    values = [
        {"_component_": "rbf", "h": 1}, [], [{"_component_": "l2"}, {"_component_": "a.b.C"}],
        None, True, 0.5, [0.25, 0.5],
    ]  # fmt: skip
    assert [level.label for level in levels("key", values)] == [
        "rbf", "none", "l2+C", "null", "true", "0.5", "0.25+0.5",
    ]  # fmt: skip


def test_values_that_would_be_called_the_same_need_labels():
    twice = [{"_component_": "rbf", "h": 1}, {"_component_": "rbf", "h": 2}]
    with pytest.raises(UserError, match=r"reward: two of its values .* \(rbf, rbf\); give them"):
        levels("reward", twice)
    assert [it.label for it in levels("reward", dict(zip("ab", twice, strict=True)))] == ["a", "b"]


@pytest.mark.parametrize("values", [[], {}])
@pytest.mark.parametrize("factor", ["grid", "one_at_a_time"])
def test_a_factor_without_values_is_refused(factor, values):
    with pytest.raises(UserError, match=r"sampler.n = (\[\]|{}): has no values to compare; give"):
        arms(study(**{factor: {"sampler.n": values}}))


def test_keys_are_called_by_as_few_words_as_tell_them_apart():
    assert short_names(["sampler.n", "evaluation.evaluators.1.n", "objective.gamma"]) == {
        "sampler.n": "sampler.n",
        "evaluation.evaluators.1.n": "1.n",
        "objective.gamma": "gamma",
    }
    assert short_names(["n", "sampler.n", "n"]) == {"n": "n", "sampler.n": "sampler.n"}


def test_levels_keep_the_files_order():
    options = study(grid={"a.b": [2, 0]}, one_at_a_time={"a.b": [1, 0], "c": [True]})
    assert factors(options) == {"a.b": ["1", "0", "2"], "c": ["true"]}
