"""The report's page: one HTML document with its style inside, for a laptop screen, a phone and paper."""

from __future__ import annotations

import html
from collections.abc import Sequence

STYLE = """
:root { --ink: #1c1c1c; --soft: #5c5c5c; --line: #dddddd; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #fff;
  max-width: 1080px; margin: 0 auto; padding: 18px 28px 60px; }
h1 { font-size: 17px; line-height: 1.35; margin: 2px 0 6px; font-weight: 600; }
h2 { font-size: 19px; margin: 34px 0 8px; padding-top: 10px; border-top: 1px solid var(--line); }
.id, .facts { color: var(--soft); font-size: 13px; margin: 0; }
header ul { margin: 6px 0 8px; padding-left: 20px; font-size: 14px; }
.verdict { font-size: 22px; line-height: 1.3; font-weight: 700; margin: 6px 0; padding-left: 12px; border-left: 6px
solid; }
.verdict.settled { border-color: #0072B2; } .verdict.open { border-color: #767676; } .verdict.refused { border-color:
#B00020; }
.badge { display: inline-block; font-size: 12.5px; border-radius: 4px; padding: 1px 8px; margin: 3px 4px 0 0; border:
1px solid; } .badge.good { color: #00573d; background: #e9f6f1; } .badge.warn { color: #7a4300; background: #fff4e0; }
.badge.bad { color: #B00020; background: #fdecee; }
table { border-collapse: collapse; font-size: 13.5px; margin: 8px 0; }
th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { border-bottom: 2px solid #999; font-weight: 600; }
td.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.better { color: #0072B2; font-weight: 700; } td.worse { color: #B34D00; font-weight: 700; }
td.equivalent { color: #00785a; font-weight: 700; } td.warn, p.warn { color: #8a3b00; }
.scroll { overflow-x: auto; } .scroll td:last-child { min-width: 210px; }
figure { margin: 14px 0 20px; } figure img { width: 100%; max-width: 1040px; height: auto; display: block; }
figcaption { font-size: 13px; color: var(--soft); max-width: 95ch; }
pre { font-size: 12.5px; background: #f6f6f6; padding: 10px; overflow-x: auto; white-space: pre-wrap; }
table.facts th { font-weight: 500; color: var(--soft); padding-right: 24px; } table.facts td { word-break: break-all; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; } h2 { break-after: avoid; }
  figure, table, header { break-inside: avoid; } .scroll { overflow: visible; } table { font-size: 8.5pt; }
  td.num { white-space: normal; } .scroll td:last-child { min-width: 0; } th, td { overflow-wrap: anywhere; }
}
"""


def page(title: str, body: str) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def section(title: str, blocks: Sequence[str]) -> str:
    """A headed section, or nothing when it has nothing to show."""
    inside = "".join(blocks)
    return f"<section><h2>{html.escape(title)}</h2>{inside}</section>" if inside else ""
