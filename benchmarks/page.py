"""A page of Markdown: a heading, the versions that a suite ran with, a finding in bold and a table."""

from collections.abc import Iterable, Mapping


def page(
    title: str, environment: Mapping[str, str], finding: str, header: list[str], rows: Iterable[Iterable[str]]
) -> str:
    """The page; cells are single lines, and a bar in one is escaped.

    >>> print(page("Sums", {"python": "3.14"}, "Both right.", ["a", "|a|"], [["-1", "1"]]))
    # Sums
    <BLANKLINE>
    python 3.14.
    <BLANKLINE>
    **Both right.**
    <BLANKLINE>
    | a | \\|a\\| |
    | --- | --- |
    | -1 | 1 |
    <BLANKLINE>
    """
    versions = ", ".join(f"{name} {value}" for name, value in environment.items())
    lines = [_line(header), _line(["---"] * len(header)), *map(_line, rows)]
    return f"# {title}\n\n{versions}.\n\n**{finding}**\n\n" + "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
