"""The figures as a picture (SVG): rates and ratios as bars, made from the results' JSON alone."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _BAR, _GAP = 760, 300, 18, 8
_COLOURS = ("#2b6cb0", "#a0aec0")


def svg(results: dict[str, Any]) -> str:
    """Bars of the lossless rates, and of each figure with a target: its share of it (the line is the target)."""
    figures = {row["name"]: row for row in results["figures"]}
    rates = [
        (name.partition(", ")[2], row["median"]) for name, row in figures.items() if name.startswith("lossless rate, ")
    ]
    shares = [
        (row["name"], row["target"] / row["median"] if row["target_is"] == "most" else row["median"] / row["target"])
        for row in figures.values()
        if row["target"] and row["median"] > 0
    ]
    about = results["machine"]
    parts, y = [], 28
    y = _section(parts, y, f"lossless rate, events/s ({about['cpu']}, {about['cpus']} CPUs, Linux {about['kernel']})")
    most = max((value for _, value in rates), default=1.0) or 1.0
    for name, value in sorted(rates, key=lambda row: -row[1]):
        y = _row(parts, y, name, value / most, f"{value:,.0f}", _COLOURS[not name.startswith("profile")])
    y = _section(parts, y + 20, "margin to the target (from the line on it is met)")
    for name, share in shares:
        y = _row(parts, y, name, min(share, 4) / 4, f"{share:.2f} x", _COLOURS[share < 1], 0.25)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 12}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _section(parts: list[str], y: int, text: str) -> int:
    parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(text)}</text>')
    return y + 10


def _row(parts: list[str], y: int, name: str, share: float, text: str, colour: str, mark: float = 0.0) -> int:
    room = _WIDTH - _LEFT - 90
    parts.append(
        f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name[:52])}</text>'
        f'<rect x="{_LEFT}" y="{y}" width="{max(share * room, 1):.1f}" height="{_BAR}" fill="{colour}"/>'
        f'<text x="{_LEFT + share * room + 6:.1f}" y="{y + 13}">{escape(text)}</text>'
    )
    if mark:
        at = _LEFT + mark * room
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 2}" y2="{y + _BAR + 2}" stroke="black"/>')
    return y + _BAR + _GAP
