"""A progress bar for work of several parts, such as a release."""

from typing import Any


class Bar:
    """A progress bar that starts anew with each thing to do, and shows up for what takes longer than a second."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` images are finished."""
        from tqdm.auto import tqdm

        if what != self._what:
            self._what, self._bar = what, tqdm(total=total, desc=what, unit="image", mininterval=1, leave=False, delay=1)
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.close()
