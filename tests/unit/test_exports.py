"""What `ebft` exports: the three lists of it say the same."""

import ast
from pathlib import Path

import ebft


def test_every_name_is_in_all_lists_and_there():
    (block,) = (
        node
        for node in ast.parse(Path(ebft.__file__).read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    typed = {
        node.module: tuple(alias.name for alias in node.names)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert typed == ebft._HOMES
    assert sorted(name for names in typed.values() for name in names) == ebft.__all__
    assert all(hasattr(ebft, name) for name in ebft.__all__)
