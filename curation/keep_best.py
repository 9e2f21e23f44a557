"""Which of several copies of one clip stays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from reelmill.curation.stage import FactTable


def losers(table: FactTable, matches: Mapping[int, Collection[int]]) -> Iterator[tuple[int, int]]:
    """(row, the row that it loses to) of all clips but the best of each set.

    matches: the rows that a row matches. Longer is better, then larger, then more bytes, then the
    lower id. Going down that order a clip loses when it matches one already kept, to the best of
    those: so a loser always matches the clip that it names. Needs source_pixels and source_bytes.
    """
    clips, pixels, sizes = table.clips, table["source_pixels"], table["source_bytes"]
    order = sorted(matches, key=lambda i: (-clips[i].seconds, -pixels[i], -sizes[i], clips[i].id))
    rank = {row: place for place, row in enumerate(order)}
    kept: set[int] = set()
    for row in order:
        winners = [other for other in matches[row] if other in kept]
        if winners:
            yield row, min(winners, key=rank.__getitem__)
        else:
            kept.add(row)
