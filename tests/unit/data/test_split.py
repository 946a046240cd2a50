import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebft.data.split import apart_from, held_out_count, mark_of, split, without_copies
from ebft.errors import UserError
from ebft.parts.splits import Example

texts = st.lists(st.text(alphabet="ab \n", min_size=1, max_size=6), min_size=2, max_size=30)


def examples_of(found):
    return [Example(f"f{i}", text) for i, text in enumerate(found)]


@given(texts, st.floats(0.01, 0.99), st.randoms())
def test_no_text_is_in_both_and_order_does_not_matter(found, held_out, random):
    examples = examples_of(found)
    if len({mark_of(e) for e in examples}) < 2:
        with pytest.raises(UserError, match=r"data.path: has (no texts|only one text)"):
            split(examples, held_out, key="data.path")
        return
    splits = split(examples, held_out, key="data.path")
    train = {mark_of(e) for e in splits.train}
    out = {mark_of(e) for e in splits.held_out}
    assert train
    assert out
    assert not train & out
    assert train | out == {mark_of(e) for e in examples}
    random.shuffle(examples)
    again = split(examples, held_out, key="data.path")
    assert {mark_of(e) for e in again.held_out} == out


def test_fraction_is_held_out():
    splits = split(examples_of([str(i) for i in range(200)]), 0.1, key="x")
    assert (len(splits.train), len(splits.held_out)) == (180, 20)


@pytest.mark.parametrize(("held_out", "count"), [(0.001, 1), (0.999, 4)])
def test_one_text_at_least_is_on_either_side(held_out, count):
    assert held_out_count(5, held_out, key="x") == count


def test_what_a_data_set_holds_out_is_not_trained_on():
    """Neither a copy of it, nor another completion of its prompt."""
    held_out = [Example("a", "4", prompt="2 + 2"), Example("b", "6", prompt="3 + 3")]
    fresh = Example("c", "8", prompt="4 + 4")
    others = [Example("d", " 4 ", prompt="2  + 2"), Example("e", "four", prompt="2 + 2"), fresh]
    assert list(apart_from(others, held_out, key="x").train) == [fresh]
    with pytest.raises(UserError, match="x: all of its texts or prompts are among those held out"):
        apart_from(others[:2], held_out, key="x")


def test_a_prompt_that_all_have_holds_nothing_out():
    held_out = [Example("a", "Guten Tag", prompt="Translate")]
    others = [Example("b", "Guten Tag", prompt="Translate"), Example("c", "Ja", prompt="Translate")]
    assert list(apart_from(others, held_out, key="x").train) == others[1:]


def test_all_completions_of_a_prompt_are_on_one_side():
    examples = [
        Example(f"{i}-{j}", prompt=f"prompt {i}", completion=f"answer {j}")
        for i in range(50)
        for j in range(4)
    ]
    splits = split(examples, 0.1, key="x")
    train, held_out = ({e.prompt for e in part} for part in (splits.train, splits.held_out))
    assert len(held_out) == 5
    assert not train & held_out
    assert len(splits.train) + len(splits.held_out) == 200


def test_white_space_does_not_make_a_copy_another_text():
    a, b = Example("a", "x  =\n1"), Example("b", " x = 1 ")
    assert without_copies([b, Example("c", "y")], of=[a]) == [Example("c", "y")]
