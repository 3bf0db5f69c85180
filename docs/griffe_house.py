"""The house's "Example:" of a docstring is one that Griffe reads as "Examples:", code and what it prints."""

import re

import griffe


class House(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
