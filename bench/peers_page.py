"""The page and the picture of ``make bench-peers``."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PAGE = Path("explanation/beside-the-frameworks.md")
PICTURE = Path("images/beside-the-frameworks.svg")

_LIBRARIES = (
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-redis",
    "openai-agents",
    "langchain-core",
    "langchain-community",
    "langchain-redis",
    "llama-index-core",
)
_ABOUT = (
    "`make bench-peers` measures this and writes this page. A turn reads what the model needs (the last 20 messages"
    " where the store can do that, else all) and adds two messages of 200 characters; LangGraph's turn is a whole run"
    " of a graph. All stores of one engine took turns in one run, with the durability that each ships with; Redis with"
    " `appendfsync everysec`. Every figure in milliseconds is a median (99th percentile) on a machine that others used"
    " too: trust the ratios."
)
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11"'
    ' role="img"><title>Milliseconds of a turn by the length of the conversation</title>'
    '<rect width="{width}" height="{height}" fill="#fff"/><text x="60" y="20" font-size="15">One turn (ms) by earlier'
    ' messages: <tspan fill="#b4540a" font-weight="bold">Daram\'s adapter</tspan>, <tspan fill="#667">the framework\'s'
    " own</tspan></text>"
)
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 250, 150, 60, 60, 46


def write(found: Mapping[str, Any], docs: Path | None) -> str:
    """The page as Markdown; below ``docs`` it is written with its picture."""
    page = _page(found["lines"], found["missing"])
    if docs is not None:
        (docs / PAGE).write_text(page)
        (docs / PICTURE).write_text(picture(found["lines"]))
    return page


def _page(lines: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> str:
    lengths = sorted({int(n) for line in lines for n in line["ms"]})
    parts = [
        "# Beside the frameworks' own stores",
        "",
        _ABOUT,
        "",
        f"![A turn by its conversation's length](../{PICTURE})",
    ]
    for kind in dict.fromkeys(line["kind"] for line in lines):
        own = [line for line in lines if line["kind"] == kind]
        turns = max(line["turns"] for line in own)
        head = ["store", "engine", *(f"n = {n:,}" for n in lengths), "round trips", "kB on the wire"]
        head.append(f"MB after {turns:,} turns")
        parts += ["", f"## {kind}", "", _row(head), _row(["---"] * len(head))]
        parts += [_row(_cells(line, lengths, turns)) for line in sorted(own, key=lambda line: str(line["engine"]))]
    parts += ["", "## What was wanted", "", _row(["", "engine", "measured", "wanted", ""]), _row(["---"] * 5)]
    parts += [_row(cells) for cells in wanted(lines)]
    parts += ["", "## What was measured", "", _versions()]
    if missing:
        parts += ["", "Not measured, because it was not there:", "", *(f"- {each}" for each in missing)]
    return "\n".join(parts) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: Mapping[str, Any], lengths: Sequence[int], turns: int) -> list[str]:
    name = f"**{line['name']}**" if line["ours"] else str(line["name"])
    ms = {int(n): figures for n, figures in line["ms"].items()}
    cells = [name, str(line["engine"]), *(f"{ms[n][0]:.1f} ({ms[n][1]:.0f})" if n in ms else "" for n in lengths)]
    cells.append("" if line["round_trips"] is None else f"{line['round_trips']:.0f}")
    cells.append("" if line["wire"] is None else f"{line['wire'] / 1000:,.1f}")
    fewer = f" (after {line['turns']:,})" if line["turns"] < turns else ""
    cells.append("" if line["size"] is None else f"{line['size'] / 1e6:,.1f}{fewer}")
    return cells


def wanted(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What was wanted of ours: a comparison, the engine, what came of it, how much it should be, whether it is."""
    found: list[list[str]] = []

    def ms(line: Mapping[str, Any], n: int) -> float:
        return float({int(k): v for k, v in line["ms"].items()}[n][0])

    def row(what: str, engine: str, ratio: float, least: float) -> None:
        found.append(
            [what, engine, f"{ratio:.1f} ×", f"≥ {least:g} ×", "reached" if ratio >= least else "**not reached**"]
        )

    for ours in (line for line in lines if line["ours"]):
        rivals = [r for r in lines if (r["kind"], r["engine"], r["ours"]) == (ours["kind"], ours["engine"], False)]
        lengths = [int(n) for n in ours["ms"]]
        for rival in rivals:
            pair = f"{ours['name']} beside {rival['name']}"
            # Who was too slow to be as long stored less: that says nothing.
            as_long = rival["turns"] == ours["turns"]
            if rival["size"] and ours["size"] and ours["kind"] == "LangGraph" and as_long:
                least = 20 if ours["engine"] == "PostgreSQL" else 50
                row(f"{pair}: smaller", ours["engine"], rival["size"] / ours["size"], least)
            if "floor" in rival["name"]:
                for n in lengths[1:]:
                    row(f"{pair}: faster at {n:,}", ours["engine"], ms(rival, n) / ms(ours, n), 1)
            elif ours["kind"] != "LangGraph":
                ratio = ms(rival, lengths[-1]) / ms(ours, lengths[-1])
                row(f"{pair}: faster at {lengths[-1]:,}", ours["engine"], ratio, 2 if rival["window"] else 20)
    return found


def _versions() -> str:
    known = []
    for name in _LIBRARIES:
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"Python {platform.python_version()} on {platform.machine()}; " + ", ".join(known) + "."


def picture(lines: Sequence[Mapping[str, Any]]) -> str:
    """An SVG: a panel per framework and engine, both axes logarithmic, ours in colour, the floor dashed."""
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    engines = list(dict.fromkeys(line["engine"] for line in lines))
    width = _LEFT + len(engines) * (_WIDTH + _GAP)
    height = _TOP + len(kinds) * (_HEIGHT + _GAP) + 20
    parts = [_SVG.format(width=width, height=height)]
    top = max(figures[0] for line in lines for figures in line["ms"].values())
    low = min(figures[0] for line in lines for figures in line["ms"].values())
    for row, kind in enumerate(kinds):
        for column, engine in enumerate(engines):
            own = [line for line in lines if line["kind"] == kind and line["engine"] == engine]
            x, y = _LEFT + column * (_WIDTH + _GAP), _TOP + row * (_HEIGHT + _GAP)
            parts += [f'<g transform="translate({x} {y})">', *_panel(f"{kind}, {engine}", own, low, top), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _panel(title: str, lines: Sequence[Mapping[str, Any]], low: float, top: float) -> list[str]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(top))
    lengths = sorted({int(n) for line in lines for n in line["ms"]})

    def place(n: int, ms: float) -> tuple[float, float]:
        span = math.log10(lengths[-1] / lengths[0]) or 1.0
        return (
            _WIDTH * math.log10(n / lengths[0]) / span,
            _HEIGHT * (1 - (math.log10(ms) - first) / max(1, last - first)),
        )

    parts = [f'<text y="-8" font-weight="bold">{escape(title)}</text>']
    for power in range(first, last + 1):
        y = _HEIGHT * (1 - (power - first) / max(1, last - first))
        parts.append(f'<path d="M0 {y:.1f}H{_WIDTH}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="-6" y="{y + 4:.1f}" text-anchor="end" fill="#555">{10.0**power:g}</text>')
    for n in lengths:
        parts.append(
            f'<text x="{place(n, low)[0]:.1f}" y="{_HEIGHT + 14}" text-anchor="middle" fill="#555">{n:,}</text>'
        )
    below = -math.inf  # where the label above ended: none lies on another
    for line in sorted(lines, key=lambda line: -float(list(line["ms"].values())[-1][0])):
        points = [place(int(n), figures[0]) for n, figures in line["ms"].items()]
        colour, thick = ("#b4540a", 2.5) if line["ours"] else ("#667", 1.2)
        dashes = ' stroke-dasharray="4 3"' if "floor" in line["name"] else ""
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="{thick}"{dashes}/>')
        below = max(points[-1][1] - 4, below + 10)
        parts.append(
            f'<text x="{points[-1][0] - 3:.1f}" y="{below:.1f}" text-anchor="end" font-size="9" fill="{colour}">'
            f"{escape(str(line['name']))}</text>"
        )
    return parts
