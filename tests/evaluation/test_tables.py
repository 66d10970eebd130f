import csv

from genjax.evaluation.tables import latex, to_latex, to_markdown, write_csv


def test_markdown_is_a_row_a_line_under_an_aligned_header():
    assert to_markdown(["solver", "10"], [["`a_b`", "1 | 2"]]) == (
        "| solver | 10 |\n| --- | ---: |\n| `a_b` | 1 \\| 2 |\n"
    )


def test_latex_is_a_booktabs_tabular():
    assert to_latex(["solver", 10], [["`a_b`", "1.0 ± 0.1"]]) == (
        "\\begin{tabular}{lr}\n\\toprule\nsolver & 10 \\\\\n\\midrule\n\\texttt{a\\_b} & 1.0 $\\pm$ 0.1 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_latex_escapes_once_what_it_would_read_as_a_command():
    assert latex("50% & \\_{x}") == r"50\% \& \textbackslash{}\_\{x\}"
    assert latex("-0.3, 1e-05, a-1, `x-1`") == r"$-$0.3, 1e-05, a-1, \texttt{x-1}"


def test_csv_has_a_column_for_every_name_and_nothing_for_none(tmp_path):
    write_csv(tmp_path / "t.csv", [{"a": 1, "b": None}, {"a": 0.1, "c": "x,y"}])
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"a": "1", "b": "", "c": ""}, {"a": "0.1", "b": "", "c": "x,y"}]
