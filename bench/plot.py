"""Draw ratios as a strip plot: one row per comparison, one dot per round, a bar at the median. Plain SVG."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape

LEFT, WIDTH, ROW, TOP = 260, 480, 34, 56


def strip_plot(title: str, rows: Sequence[tuple[str, Sequence[float], str]]) -> str:
    """Return an SVG; a row is (name, ratios, goal), the goal as ``>= 2.2`` or empty."""
    most = max(max(ratios) for _, ratios, _ in rows)
    bounds = [float(goal.split()[1]) for _, _, goal in rows if goal]
    scale = WIDTH / (max([most, 1.0, *bounds]) * 1.05)
    height = TOP + ROW * len(rows) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 80} {height}"'
        ' font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="#fff"/><text x="12" y="22" font-size="15">{escape(title)}</text>',
        _rule(LEFT + scale, height, "1.0"),
    ]
    for number, (name, ratios, goal) in enumerate(rows):
        parts.append(_row(TOP + ROW * number + ROW / 2, scale, name, ratios, goal))
    return "\n".join([*parts, "</svg>", ""])


def _rule(x: float, height: float, label: str) -> str:
    return (f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 8}" stroke="#999" stroke-dasharray="3 3"/>'
            f'<text x="{x:.1f}" y="{TOP - 14}" text-anchor="middle" fill="#666">{label}</text>')


def _row(y: float, scale: float, name: str, ratios: Sequence[float], goal: str) -> str:
    middle = statistics.median(ratios)
    dots = "".join(f'<circle cx="{LEFT + ratio * scale:.1f}" cy="{y:.1f}" r="3" fill="#2a6fb0" opacity=".35"/>'
                   for ratio in ratios)
    at = LEFT + middle * scale
    text = f'<text x="12" y="{y + 4:.1f}">{escape(name)}</text>'
    bar = f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 10:.1f}" y2="{y + 10:.1f}" stroke="#123" stroke-width="2.5"/>'
    value = f'<text x="{LEFT + WIDTH + 8}" y="{y + 4:.1f}">{middle:.2f}</text>'
    return text + dots + bar + value + (_goal(y, scale, goal) if goal else "")


def _goal(y: float, scale: float, goal: str) -> str:
    sense, bound = goal.split()
    x = LEFT + float(bound) * scale
    tip = 6 if sense == ">=" else -6
    return (f'<path d="M{x:.1f} {y - 8:.1f} V{y + 8:.1f} M{x:.1f} {y:.1f} h{tip}" stroke="#c04a00" fill="none"'
            f' stroke-width="1.5"/>')
