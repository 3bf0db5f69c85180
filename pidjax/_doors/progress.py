"""A progress bar for long work, if tqdm is installed; it appears after two seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def progress_bar(total: int, description: str, unit: str, wanted: bool) -> Iterator[Callable[..., None]]:
    """What to tell how much more is done, and what to show beside the bar: advance(count, loss="0.1")."""
    if not (wanted and find_spec("tqdm")):
        yield lambda count, /, **shown: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=description, unit=unit, delay=2) as bar:

        def advance(count: int, /, **shown: str) -> None:
            bar.set_postfix(shown, refresh=False)
            bar.update(count)

        yield advance
