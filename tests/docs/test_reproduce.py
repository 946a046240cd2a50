"""docs/reproduce.md has the costs that the cost model gives for the recipes as they are."""

from docs.generate.paper_cost import PAGE, filled


def test_the_costs_are_those_of_the_recipes():
    page = PAGE.read_text()
    assert "| `qa_code_qwen2.5_1.5b` |" in page
    assert filled(page) == page, "python -m docs.generate.paper_cost"
