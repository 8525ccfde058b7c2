# SPDX-License-Identifier: Apache-2.0
"""How far something is and how long the rest will take."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Pace", "format_duration"]


class Pace:
    """Counts finished parts and extrapolates their mean time.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.done = 0
        self.total = 0
        self._done_here = 0
        self._since = clock()

    def begin(self, done: int, total: int) -> None:
        """Start `total` parts of which `done` were finished before."""
        self.done, self.total = done, total
        self._done_here, self._since = 0, self._clock()

    def skip_to(self, done: int) -> None:
        """Note that `done` parts are finished, the new ones without any work."""
        self.done = done

    def advance(self) -> None:
        """Note that one more part is finished."""
        self.done += 1
        self._done_here += 1

    @property
    def count(self) -> str:
        """``[ 7/24]``, of constant width."""
        return f"[{self.done:>{len(str(self.total))}}/{self.total}]"

    @property
    def left(self) -> str | None:
        """The time the rest will take; `None` before the first part, and after the last."""
        rest = self.total - self.done
        if not self._done_here or rest <= 0:
            return None
        return format_duration((self._clock() - self._since) / self._done_here * rest)


def format_duration(seconds: float) -> str:
    """Return a duration as a person would say it.

    Example:
        >>> [format_duration(s) for s in (0.2, 59.4, 59.6, 160, 3599, 9000)]
        ['1 s', '59 s', '1 min', '3 min', '1 h', '2 h 30 min']
    """
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
