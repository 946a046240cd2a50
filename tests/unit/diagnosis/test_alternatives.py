import pytest

from ebft.diagnosis.alternatives import label_of, load_alternatives, variations
from ebft.errors import UserError
from tests.conftest import RECIPES

RECIPE = RECIPES / "ebft_full.yaml"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sampler.n=4,16", ["sampler.n=4", "sampler.n=16"]),
        ("sampler.n=4", ["sampler.n=4"]),
        ("baseline=none, leave_one_out", ["baseline=none", "baseline=leave_one_out"]),
        ("a=[],[x, y]", ["a=[]", "a=[x, y]"]),
        ("a={b: 1, c: 2},null", ["a={b: 1, c: 2}", "a=null"]),
        ("a=[{b: 'x, ]'}],'1,2'", ["a=[{b: 'x, ]'}]", "a='1,2'"]),
        ("a=b=c,d", ["a=b=c", "a=d"]),
    ],
)
def test_commas_in_brackets_belong_to_a_value(word, expected):
    assert list(variations(word)) == expected


@pytest.mark.parametrize("word", ["sampler.n", "sampler.n=", "=4,16", "~reward", "~reward=1", ""])
def test_what_is_no_variation_is_refused(word):
    with pytest.raises(UserError, match="a variation is key=value,value"):
        list(variations(word))


@pytest.mark.parametrize("word", ["sampler.n=4,,8", "sampler.n=4,", "sampler.n=,4"])
def test_nothing_between_commas_is_refused(word):
    with pytest.raises(UserError, match="nothing between two commas"):
        list(variations(word))


def test_the_recipe_comes_first_and_what_it_has_already_is_left_out():
    found = load_alternatives(RECIPE, ["seed=3"], ["sampler.n=4,16", "baseline=none,leave_one_out"])
    assert [it.label for it in found] == ["as it is", "sampler.n=16", "baseline=none"]
    assert [it.override for it in found] == [None, "sampler.n=16", "baseline=none"]
    assert [it.options.sampler.n for it in found] == [4, 16, 4]
    assert {it.options.seed for it in found} == {3}


@pytest.mark.parametrize(
    "word",
    ["data.held_out=0.2", "documents.length=128", "model.precision=bfloat16", "seed=0,1"],
)
def test_documents_and_weights_cannot_be_varied(word):
    section = word.split(".")[0].split("=")[0]
    with pytest.raises(UserError, match=f"{section} cannot differ"):
        load_alternatives(RECIPE, [], [word])


def test_a_recipe_that_trains_nothing_is_refused():
    with pytest.raises(UserError, match="recipe = evaluate: trains nothing"):
        load_alternatives(RECIPES / "evaluate.yaml", [], [])


def test_a_mistake_in_a_variation_is_explained():
    with pytest.raises(UserError, match=r"sampler\.n"):
        load_alternatives(RECIPE, [], ["sampler.n=4,four"])


def test_labels_have_the_names_of_parts():
    override = "transforms=[{_component_: l2}, {_component_: project, size: 8}]"
    assert label_of(override) == "transforms=[l2, {_component_: project, size: 8}]"
