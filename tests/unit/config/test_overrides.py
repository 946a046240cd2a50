import logging

import pytest

from ebft.config.overrides import apply_overrides, parse_override
from ebft.errors import UserError

RECIPE = {
    "seed": 0,
    "sampler": {"_component_": "hf_tree", "n": 4},
    "plan": {"_component_": "strided", "stride": 8},
    "evaluators": [{"_component_": "cross_entropy"}, {"_component_": "loss", "plan": "${plan}"}],
}


def apply(*texts):
    return apply_overrides(RECIPE, [parse_override(text) for text in texts])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=3", 3),
        ("seed=1e-5", 1e-5),
        ("seed=true", True),
        ("seed=null", None),
        ("seed=a=b", "a=b"),
        ("seed=[1, 2]", [1, 2]),
        ("seed='7'", "7"),
        ("seed= 3 ", 3),
        ("seed=${x}", "${x}"),
        ("seed=[a, 'b #c']", ["a", "b #c"]),
        ("seed=!!str 7", "7"),
        # A text is what was typed, where YAML would leave out a comment, or join lines.
        ("seed=a #1", "a #1"),
        ("seed=7 # years", "7 # years"),
        ("seed=null #", "null #"),
        ("seed=${x} #1", "${x} #1"),
        ("seed=a\n  b", "a\n  b"),
        ("seed= a ", " a "),
    ],
)
def test_values_are_yaml(text, value):
    found = apply(text)["seed"]
    assert found == value
    assert type(found) is type(value)


def test_the_recipe_itself_is_not_touched():
    before = repr(RECIPE)
    apply("sampler.n=8", "~seed", "evaluators.0=other")
    assert repr(RECIPE) == before


def test_nested_keys_lists_and_new_sections():
    assert apply("sampler.n=8")["sampler"] == {"_component_": "hf_tree", "n": 8}
    assert apply("evaluators.1.n=8")["evaluators"][1]["n"] == 8
    assert apply("model.path=x")["model"] == {"path": "x"}
    assert "n" not in apply("~sampler.n")["sampler"]
    assert len(apply("~evaluators.0")["evaluators"]) == 1


def test_choosing_a_part_drops_the_options_of_the_one_before(caplog):
    caplog.set_level(logging.INFO, "ebft")
    for text in ("sampler=vllm", "sampler._component_=vllm"):
        assert apply("sampler.temperature=0.6", text)["sampler"] == {
            "_component_": "vllm",
            "temperature": 0.6,
        }
    said = "options of hf_tree dropped: sampler.n=4; add those that vllm has too"
    assert f"sampler: vllm instead of hf_tree; {said}" in caplog.text


def test_the_dropped_options_are_shown_as_they_would_be_given(caplog):
    section = {"_component_": "old", "at": [0.5, 1], "off": None, "path": "a b", "long": "x" * 99}
    apply_overrides({"part": section}, [parse_override("part=new")])
    (said,) = caplog.messages
    assert said == (
        "part: new instead of old; options of old dropped: part.at=[0.5, 1], part.off=null, "
        f"part.path=a b, part.long={'x' * 39}…; add those that new has too"
    )


def test_choosing_the_part_that_is_there_keeps_its_options():
    assert apply("sampler=hf_tree") == RECIPE


def test_a_section_of_its_own_for_a_twin():
    """`${plan}` follows the plan until one of its keys is set where it is a twin."""
    assert apply("plan.stride=4")["evaluators"][1]["plan"] == "${plan}"
    changed = apply("evaluators.1.plan.stride=2")
    assert changed["evaluators"][1]["plan"] == {"_component_": "strided", "stride": 2}
    assert changed["plan"]["stride"] == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed", "an override is key=value, or ~key"),
        ("=3", "an override is key=value"),
        ("a..b=3", "an override is key=value"),
        ("~seed=3", "an override is key=value"),
        ("seed=[1", "is not a YAML value"),
        ("seed=!!float", "is not a YAML value"),
        ("seed=${", "is not a YAML value"),
        ("seed=[1, 2] # two", "'# two' is a comment in YAML; put it in quotes"),
        ("seed='a' #b", "'#b' is a comment in YAML"),
        ("seed=#a", "'#a' is a comment in YAML"),
        ("seed.x=3", "seed = 0 has no keys in it"),
        ("evaluators.5=x", "the list has 2 entries, from 0; none is '5'"),
        ("evaluators.x.n=1", "none is 'x'"),
        ("~sampler.m", "there is no 'm'"),
        ("~sampel.n", "there is no 'sampel'; did you mean 'sampler'?"),
    ],
)
def test_mistakes(text, says):
    with pytest.raises(UserError) as error:
        apply(text)
    assert says in str(error.value)
    assert str(error.value).startswith("command line: ")
