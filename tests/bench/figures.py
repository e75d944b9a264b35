"""One row of the results: a median, its range, its target. Owns how a figure is shown and judged."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any


@dataclass
class Figure:
    """A row of the table: a median, its range, and what the target says."""

    name: str
    values: list[float]
    unit: str
    target: float | None = None
    least: bool = False
    """the target is a least, not a most"""
    note: str = ""

    @property
    def median(self) -> float:
        """Median of the values; 0 of none."""
        return statistics.median(self.values) if self.values else 0.0

    @property
    def met(self) -> bool | None:
        """Is the target met by the median? None without a target or a value."""
        if self.target is None or not self.values:
            return None
        return self.median >= self.target if self.least else self.median <= self.target

    def record(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        return {
            "name": self.name,
            "median": round(self.median, 4),
            "values": [round(v, 4) for v in self.values],
            "unit": self.unit,
            "target": self.target,
            "target_is": "least" if self.least else "most",
            "met": self.met,
            "note": self.note,
        }

    def row(self) -> str:
        """As a line of the table (Markdown)."""
        spread = f"{_short(min(self.values))}..{_short(max(self.values))}" if len(self.values) > 1 else ""
        bound = "" if self.target is None else f"{'>=' if self.least else '<='} {_short(self.target)}"
        verdict = {True: "met", False: "NOT met", None: ""}[self.met]
        shown = _short(self.median) if self.values else "-"
        return f"| {self.name} | {shown} | {spread} | {self.unit} | {bound} | {verdict} | {self.note} |"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
