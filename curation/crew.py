"""Who carries out measured work: processes of this machine, or of a Ray cluster.

The passes name a function, its items and what one item takes; a crew says where and when each is
worked out, and brings the results in the order of the items. What a run writes therefore does not
depend on its crew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from reelmill.curation.stage import Resources
from reelmill.curation.workers import Lost

Result = TypeVar("Result")


class Crew(Protocol):
    """Workers (reelmill.curation.workers) or RayWorkers (reelmill.curation.engine_ray)."""

    def warm_up(self) -> None:
        """Begins what takes a while at the start; the first `map` waits for it."""

    def map(
        self,
        function: Callable[..., Result],
        items: Sequence[tuple[Any, ...]],
        *,
        name: Callable[[int], str],
        patience: Callable[[int], float] = ...,
        needs: Resources = ...,
    ) -> Iterator[Result | Lost]:
        """function(*item) for each item, in order; Lost for one that broke its process twice.

        name: of an item, for messages. patience: seconds beyond the limit that an item may be
        silent. needs: what one item takes. Raises what the function raises.
        """
        ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...
