"""Labels of pictures."""

from matplotlib.figure import Figure

from ebft.report.style import HIGH, style


def test_a_long_label_has_several_lines_that_fit():
    axes = Figure().subplots()
    style(axes, y="MultiPL-E Bash accuracy (greedy), share of documents at a $price$")
    lines = axes.get_ylabel().split("\n")
    assert max(map(len, lines)) <= HIGH + 2  # two signs are escaped
    assert " ".join(lines) == r"MultiPL-E Bash accuracy (greedy), share of documents at a \$price\$"
    style(axes, y="held-out CE, nats/token")
    assert axes.get_ylabel() == "held-out CE, nats/token"
