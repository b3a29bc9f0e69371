"""The diagram of orchestrator's rooms, an SVG generated from the table in docs/architecture.md.

`python -m docs.generate.rooms` regenerates docs/pictures/rooms.svg for readers of the repository; the site build
generates its own. An arrow means: may import. Indirect dependencies are not drawn.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1]
PICTURE = DOCS / "pictures" / "rooms.svg"
ROW = re.compile(r"^\| (\d+) \| `(\w+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)
WIDE, HIGH, GAP, STEP, MARGIN = 112, 34, 22, 78, 20
ADAPTERS = {"executors": "Ray", "search": "Optuna", "tracking": "MLflow", "kubernetes": "Kubernetes"}
STYLE = """<style>
text{font:600 13px system-ui,sans-serif;text-anchor:middle;fill:#1a237e}
.small{font:10px system-ui,sans-serif;fill:#5c6bc0}
rect{fill:#e8eaf6;stroke:#3f51b5} .adapter{fill:#fff3e0;stroke:#ef6c00} .ground{fill:#e8f5e9;stroke:#2e7d32}
path{fill:none;stroke:#9fa8da;stroke-width:1.3;marker-end:url(#tip)} .back{fill:#fff;stroke:none}
</style>"""


@dataclass(frozen=True)
class Room:
    """A row of the table."""

    level: int
    name: str
    what: str
    knows: frozenset[str]


def rooms() -> dict[str, Room]:
    """The table, by name."""
    rows = ROW.findall((DOCS / "architecture.md").read_text())
    return {
        name: Room(int(level), name, what, frozenset(re.findall(r"`(\w+)`", knows)))
        for level, name, what, knows in rows
    }


def reduced(table: Mapping[str, Room]) -> dict[str, set[str]]:
    """Transitive reduction: room -> the rooms it may import that no other such room may import."""
    reach: dict[str, set[str]] = {}

    def below(name: str) -> set[str]:
        if name not in reach:
            reach[name] = set().union(*({other} | below(other) for other in table[name].knows))
        return reach[name]

    return {
        name: {other for other in room.knows if not any(other in below(third) for third in room.knows - {other})}
        for name, room in table.items()
    }


def places(table: Mapping[str, Room], arrows: Mapping[str, set[str]]) -> dict[str, tuple[float, float]]:
    """Room -> center of its box, in each level as close as possible to the rooms it may import.

    The right side of level 1 is stretched at the end, so that long arrows pass beside the boxes above it.
    """
    levels = sorted({room.level for room in table.values()})
    widest = max(sum(room.level == level for room in table.values()) for level in levels)
    width = widest * (WIDE + GAP)
    found: dict[str, tuple[float, float]] = {}
    for level in levels:
        names = [name for name, room in table.items() if room.level == level]
        pull = {n: sum(found[o][0] for o in arrows[n]) / len(arrows[n]) if arrows[n] else width / 2 for n in names}
        names.sort(key=lambda name: pull[name])
        room_each = max(WIDE + GAP, width / len(names) if len(names) > 2 else WIDE + GAP)
        middle = sum(pull.values()) / len(names)
        left = min(max(middle - room_each * len(names) / 2, 0), width - room_each * len(names))
        y = MARGIN + HIGH / 2 + (levels[-1] - level) * STEP
        for i, name in enumerate(names):
            found[name] = (MARGIN + left + room_each * (i + 0.5), y)
    for name in (name for name, room in table.items() if room.level == 1):
        x, y = found[name]
        found[name] = (x + max(0, x - MARGIN - width / 2) * 0.65, y)
    return found


def box(room: Room, x: float, y: float) -> str:
    """A room's box, with its contents as a tooltip."""
    kind = "adapter" if room.name in ADAPTERS else "ground" if room.level <= 1 else ""
    small = (
        f'<text class="small" x="{x:.0f}" y="{y + 13:.0f}">{ADAPTERS[room.name]}</text>'
        if room.name in ADAPTERS
        else ""
    )
    return (
        f'<g><title>{html.escape(room.name + ": " + room.what)}</title><rect class="{kind}" x="{x - WIDE / 2:.0f}" '
        f'y="{y - HIGH / 2:.0f}" width="{WIDE}" height="{HIGH}" rx="6"/>'
        f'<text x="{x:.0f}" y="{y + (1 if small else 5):.0f}">{room.name}</text>{small}</g>'
    )


def picture() -> str:
    """The SVG."""
    table = rooms()
    arrows = reduced(table)
    where = places(table, arrows)
    width = max(x for x, _ in where.values()) + WIDE / 2 + MARGIN
    height = max(y for _, y in where.values()) + HIGH / 2 + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="The rooms of orchestrator; an arrow means: may import">',
        STYLE,
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" style="fill:#9fa8da;stroke:none;marker-end:none"/></marker></defs>',
        f'<rect class="back" width="{width:.0f}" height="{height:.0f}"/>',
    ]
    for name, others in arrows.items():
        for other in sorted(others):
            (x, y), (u, v) = where[name], where[other]
            top, end = y + HIGH / 2, v - HIGH / 2
            bend = (end - top) / 2
            lines.append(
                f'<path d="M{x:.0f} {top:.0f}C{x:.0f} {top + bend:.0f} {u:.0f} {end - bend:.0f} {u:.0f} {end:.0f}"/>'
            )
    lines += [box(table[name], *where[name]) for name in table]
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture())
