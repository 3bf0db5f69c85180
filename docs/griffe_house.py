"""Docstrings of the house as Markdown: an "Example:" is code and what it prints, and columns are kept as they stand."""

import re

import griffe

_COLUMNS = re.compile(r"\S {3,}\S|^ {8}")
"""What every line of a table of names and texts has: a gap, or it goes on below one."""


def _as_markdown(text: str) -> str:
    paragraphs = re.sub(r"(?m)^Example:$", "Examples:", text).split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        lines = paragraph.split("\n")
        if not lines[0].startswith(" ") and all(map(_COLUMNS.search, lines)):
            paragraphs[number] = "\n".join(f"    {line}" for line in lines)
    return "\n\n".join(paragraphs)


class House(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _as_markdown(obj.docstring.value)
