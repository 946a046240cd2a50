"""Leaks that are planted on purpose are found, and texts that are merely alike stay."""

import random

from hypothesis import given
from hypothesis import strategies as st

from ebft.data.copies import LINES, without_near_copies
from ebft.data.python_files import PythonFiles
from ebft.data.python_functions import PythonFunctions
from ebft.parts.splits import Example


def code(seed, lines=20):
    rng = random.Random(seed)
    return [f"value_{rng.randrange(10**6)} = {rng.randrange(10**6)}" for _ in range(lines)]


def example(name, lines):
    return Example(name, "\n".join(lines) + "\n")


ORIGINAL = code(0)
PLANTED = {
    "a copy": ORIGINAL,
    "indented": [f"    {line}" for line in ORIGINAL],
    "with a header": ["# Copyright of somebody else", "# All rights reserved", *ORIGINAL],
    "edited in three places": [*ORIGINAL[:17], *code(1, 3)],
    "in another order": ORIGINAL[::-1],
    "inside a larger file": [*code(2, 50), *ORIGINAL],
    "its first half": ORIGINAL[:10],
}
ALIKE = {
    "another file": code(3),
    "half of it": [*ORIGINAL[:10], *code(4, 10)],
    "the same few lines": [*ORIGINAL[: LINES - 1]],
    "the same short lines": ["else:", "return", "pass"] * 9,
}


def test_planted_leaks_are_found_and_nothing_else():
    texts = [example(name, lines) for name, lines in {**PLANTED, **ALIKE}.items()]
    held_out = [example("held out", ORIGINAL), example("short", ["else:", "return"] * 9)]
    assert {kept.name for kept in without_near_copies(texts, of=held_out)} == set(ALIKE)


@given(st.integers(0, 20), st.randoms())
def test_near_copies_are_what_comparing_all_pairs_finds(edits, rng):
    edited = list(ORIGINAL)
    for place in rng.sample(range(20), edits):
        edited[place] = f"edited = {place} * 1000"
    kept = without_near_copies([example("edited", edited)], of=[example("held out", ORIGINAL)])
    assert bool(kept) == (20 - edits < 0.8 * 20)


def write(folder, files):
    for name, lines in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_a_package_is_never_trained_on_nor_are_copies_of_its_files(tmp_path):
    apart = {f"apart/file{i}.py": code(100 + i) for i in range(5)}
    copies = {f"vendored/file{i}.py": ["# vendored", *code(100 + i)] for i in range(3)}
    rest = {f"file{i}.py": code(200 + i) for i in range(20)}
    root = write(tmp_path, {**apart, **copies, **rest, "single.py": code(300)})
    splits = PythonFiles(path=root, out_of_distribution=("apart", "single"))()
    assert {e.name for e in splits.out_of_distribution} == {*apart, "single.py"}
    names = {e.name for e in splits.train}
    assert names <= {*rest}
    assert names | {e.name for e in splits.held_out} >= {*rest}


def test_an_installed_package_is_out_of_distribution(tmp_path):
    root = write(tmp_path, {f"file{i}.py": code(i) for i in range(5)})
    splits = PythonFiles(path=root, out_of_distribution=("pluggy",))()
    assert "pluggy/_manager.py" in {e.name for e in splits.out_of_distribution}
    assert len(splits.train) + len(splits.held_out) == 5


def test_functions_of_a_package_that_is_never_trained_on(tmp_path):
    def function(i):
        return [f"def f{i}(x):", f'    """Add {i} to x."""', *(f"    {line}" for line in code(i))]

    copied = function(0)
    root = write(
        tmp_path,
        {**{f"file{i}.py": function(i) for i in range(1, 9)},
         "copy1.py": [*copied[:-2], "    return x"],
         "apart/a.py": copied},
    )  # fmt: skip
    splits = PythonFunctions(path=root, out_of_distribution=("apart",))()
    assert [e.name for e in splits.out_of_distribution] == ["apart/a.py:1"]
    assert not any(e.name.startswith("copy1") for e in splits.train)
    assert len(splits.train) >= 6
    assert all(e.name.startswith(f"{e.cluster}:") for e in splits.train), "a function's file"
