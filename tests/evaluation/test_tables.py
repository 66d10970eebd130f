import csv

from genjax.evaluation.tables import count, duration, latex, to_latex, to_markdown, write_csv


def test_markdown_is_a_row_a_line_under_an_aligned_header():
    assert to_markdown(["solver", "10"], [["`a_b`", "1 | 2"]]) == (
        "| solver | 10 |\n| --- | ---: |\n| `a_b` | 1 \\| 2 |\n"
    )


def test_latex_is_a_booktabs_tabular():
    assert to_latex(["solver", 10], [["`a_b`", "1.0 ± 0.1"]]) == (
        "\\begin{tabular}{lr}\n\\toprule\nsolver & 10 \\\\\n\\midrule\n\\texttt{a\\_b} & 1.0 $\\pm$ 0.1 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_latex_has_signs_as_mathematics():
    assert latex("≤3.2, in 3σ") == r"$\le$3.2, in 3$\sigma$"


def test_latex_escapes_once_what_it_would_read_as_a_command():
    assert latex("50% & \\_{x}") == r"50\% \& \textbackslash{}\_\{x\}"
    assert latex("-0.3, 1e-05, a-1, `x-1`") == r"$-$0.3, 1e-05, a-1, \texttt{x-1}"


def test_csv_has_a_column_for_every_name_and_nothing_for_none(tmp_path):
    write_csv(tmp_path / "t.csv", [{"a": 1, "b": None}, {"a": 0.1, "c": "x,y"}])
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"a": "1", "b": "", "c": ""}, {"a": "0.1", "b": "", "c": "x,y"}]


def test_times_and_numbers_have_three_digits_at_most():
    seconds = [0.004, 0.412, 0.9951, 9.94, 9.96, 99.4, 151, 5990, 6000, 360_000]
    assert [duration(value) for value in seconds] == (
        ["0.00 s", "0.41 s", "1.0 s", "9.9 s", "10 s", "99 s", "2.5 min", "100 min", "1.7 h", "100 h"]
    )
    numbers = [0, 812, 999.4, 999.6, 46_321, 1_234_567, 3.2e9]
    assert [count(value) for value in numbers] == ["0", "812", "999", "1k", "46.3k", "1.23M", "3.2G"]
