"""Tables as Markdown, as LaTeX (booktabs) and as CSV.

Cells are text or numbers; text between backticks is code in the first two, as in "`dpmpp_2m`". The first column is
aligned to the left, the others to the right.
"""

import csv
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_LATEX = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "σ": r"$\sigma$",
    "×": r"$\times$",
}


def to_markdown(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a Markdown table that ends with a line break."""
    rules = ["---"] + ["---:"] * (len(header) - 1)
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in (header, *rows)]
    lines = [cells[0], rules, *cells[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    r"""Returns a LaTeX `tabular` that needs the package booktabs and ends with a line break.

    What LaTeX would read as a command is escaped, and a minus before a number is one; code becomes `\texttt`.
    """
    lines = [f"{' & '.join(latex(str(cell)) for cell in row)} \\\\" for row in (header, *rows)]
    columns = "l" + "r" * (len(header) - 1)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    return "\n".join([*body, r"\bottomrule", r"\end{tabular}", ""])


def latex(text: str) -> str:
    """Returns text as it is written in LaTeX."""
    parts = re.split(r"`([^`]*)`", text)  # every second part is code
    escaped = [re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], part) for part in parts]
    plain = [re.sub(r"(?<!\w)-(?=\d)", "$-$", part) for part in escaped[::2]]
    code = [rf"\texttt{{{part}}}" for part in escaped[1::2]] + [""]
    return "".join(a + b for a, b in zip(plain, code, strict=True))


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows under the names that any of them has, in the order in which they first appear; None is left empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def supported(figure: Mapping[str, Any]) -> str:
    """Returns the format of a figure's values that shows no more digits than its interval supports.

    Args:
        figure: with `low` and `high`, of whose half the format shows two digits; four digits where they are not known.
    """
    low, high = figure.get("low"), figure.get("high")
    half = 0.0 if low is None or high is None else (high - low) / 2
    return f"z.{max(0, 1 - math.floor(math.log10(half)))}f" if 0 < half < math.inf else ".4g"


def duration(seconds: float) -> str:
    """Returns a time as text of at most three digits and a unit: "0.41 s", "95 s", "2.5 min", "31 h"."""
    size, unit = (1.0, "s") if seconds < 100 else (60.0, "min") if seconds < 6000 else (3600.0, "h")
    number = seconds / size
    return f"{number:.{0 if number >= 9.95 else 1 if number >= 0.995 else 2}f} {unit}"


def count(number: float) -> str:
    """Returns a large number as text of at most three digits: "812", "46.3k", "1.2M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
