"""Asked against achieved, as a map of concepts by motions.

The map is a table whose cells say in words what their shade says, so it needs no other beside it.
"""

from __future__ import annotations

from markupsafe import Markup

from reelmill.reports.markup import Child, count, el, percent, plural, visible
from reelmill.reports.schema import QuotaCell, QuotaGrid, StageReport

SHADES = 5


def quota_map(stage: StageReport, grid: QuotaGrid, told: str = "") -> Markup:
    """The figure. told: what its heading begins with."""
    shade = _Shading(grid)
    head = el(
        "tr",
        el("th", "Concept", scope="col"),
        [el("th", visible(way, 40), scope="col", class_="n") for way in grid.motions],
        el("th", "All", scope="col", class_="n"),
    )
    rows = [
        el(
            "tr",
            el("th", visible(name, 40), el("small", visible(looks, 200)), scope="row"),
            [shade.cell(cell) for cell in cells],
            shade.cell(_whole(cells, asked), len(cells)),
        )
        for (name, looks), asked, cells in zip(
            grid.concepts.items(), grid.asked, grid.cells, strict=True
        )
    ]
    columns = [_whole(list(column), None) for column in zip(*grid.cells, strict=True)]
    end = el(
        "tr",
        el("th", "All", scope="row"),
        [shade.cell(cell, len(rows)) for cell in columns],
        shade.cell(_whole(columns, _sum(grid.asked)), len(rows) * len(columns)),
    )
    caption = "Clips kept of those asked for, by concept and motion of the camera"
    said: list[Child] = ["kept of asked; the fuller the shade, the nearer, "]
    said.append(el("span", "▾ is short of it", class_="warn"))
    if grid.ceiling:
        caption = "Clips kept of those that came in, by concept and motion of the camera"
        asked = [c.asked for row in grid.cells for c in row] + grid.asked
        most = max((number for number in asked if number is not None), default=0)
        said = [f"kept of those that came in; at most {count(most)} of each kind may stay"]
    return el(
        "figure",
        el(
            "figcaption",
            el("b", f"{told}concept × motion"),
            said,
            el("a", stage.name, href=f"#{stage.slug}"),
        ),
        el(
            "div",
            el("table", el("caption", caption), el("thead", head), el("tbody", rows, end)),
            class_="scroll",
        ),
        class_="quotas",
    )


def _sum(asked: list[int | None]) -> int | None:
    known = [number for number in asked if number is not None]
    return sum(known) if len(known) == len(asked) else None


def _whole(cells: list[QuotaCell], asked: int | None) -> QuotaCell:
    """Cells together; what is asked of them, where it is asked of each or of all."""
    return QuotaCell(
        into=sum(cell.into for cell in cells),
        kept=sum(cell.kept for cell in cells),
        asked=asked if asked is not None else _sum([c.asked for c in cells if c.into or c.asked]),
    )


class _Shading:
    """Cells of one map: what is asked of them, or else the fullest cell, is the fullest shade."""

    def __init__(self, grid: QuotaGrid):
        self.ceiling = grid.ceiling
        self.most = max(1, *(cell.kept for row in grid.cells for cell in row))

    def cell(self, cell: QuotaCell, together: int = 1) -> Markup:
        """together: of how many cells it is the sum."""
        if not cell.into and not cell.asked:
            return el("td", "–", class_="n quiet")
        asked = None if self.ceiling else cell.asked
        said: list[Child] = [el("b", count(cell.kept))]
        if self.ceiling or asked is not None:
            said.append(f" of {count(cell.into if asked is None else asked)}")
        if asked is not None and cell.kept < asked:
            said.append(el("span", " ▾", class_="warn"))
        share = cell.kept / (self.most * together if asked is None else max(1, asked))
        shade = min(SHADES, -(-int(1000 * share) * SHADES // 1000)) if cell.kept else 0
        told = f"{plural(cell.into, 'clip')} came in, {percent(cell.kept, cell.into)} kept"
        return el("td", said, title=told, class_=f"n h{shade}")
