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
    "langgraph-checkpoint",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-redis",
    "openai-agents",
    "langchain-core",
    "langchain-community",
    "langchain-redis",
    "llama-index-core",
    "llama-index-storage-chat-store-sqlite",
    "llama-index-storage-chat-store-postgres",
    "llama-index-storage-chat-store-redis",
    "chainlit",
    "sqlalchemy",
    "redis",
    "psycopg",
    "asyncpg",
    "aiosqlite",
    "apsw",
)
_ABOUT = (
    "`make bench-peers` measures this and writes this page, all of it, in one run. A turn reads what the model needs"
    " (the last 20 messages where the store can do that, else all) and adds two messages of 200 characters; LangGraph's"
    " turn is a whole run of a graph, which loads the whole state; Chainlit's opens the thread and keeps two steps."
    " All stores of one engine took turns, one turn each at a time, with the durability that each ships with"
    " (below). Every figure in milliseconds is a median (99th percentile); n is how many messages there were before."
    " *16 at once*: milliseconds for each of the turns of 16 conversations that are taken at once. *1 ms away*:"
    " a turn at the middle n with a server whose replies come 1 ms late; the figure beside it is how often a turn waits"
    " for them. Beside *wanted* stands what was promised before anything was built, and – where nothing was."
    " The floor of a session is its turn written by hand: one statement that reads, one that writes, with the same"
    " durability and without all else."
)
_FLAT = 1.5
_DELTA = "DeltaChannel"
_FLOOR = "(the floor)"
_Line = Mapping[str, Any]
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11"'
    ' role="img"><title>Milliseconds of a turn by the length of the conversation</title>'
    '<rect width="{width}" height="{height}" fill="#fff"/><text x="60" y="20" font-size="15">One turn (ms) by earlier'
    ' messages: <tspan fill="#b4540a" font-weight="bold">Daram\'s adapter</tspan>, <tspan fill="#667">the framework\'s'
    " own</tspan>, dashed: the floor</text>"
)
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 250, 150, 60, 60, 46


def write(found: Mapping[str, Any], docs: Path | None) -> str:
    """The page as Markdown; below ``docs`` it is written with its picture."""
    page = _page(found["lines"], found["missing"], found["machine"])
    if docs is not None:
        (docs / PAGE).write_text(page)
        (docs / PICTURE).write_text(picture(found["lines"]))
    return page


def _page(lines: Sequence[_Line], missing: Sequence[str], machine: Mapping[str, str]) -> str:
    rows = wanted(lines)
    asked = [row for row in rows if row[4]]
    reached = sum(row[4] == "reached" for row in asked)
    parts = [
        "# Beside the frameworks' own stores",
        "",
        _ABOUT,
        "",
        f"![A turn by its conversation's length](../{PICTURE})",
        "",
        "## What was wanted",
        "",
        f"{reached} of {len(asked)} are reached.",
        "",
        *_table([["", "engine", "measured", "wanted", ""], *rows]),
    ]
    for kind in dict.fromkeys(line["kind"] for line in lines):
        parts += ["", f"## {kind}", "", *_table(_rows([line for line in lines if line["kind"] == kind]))]
    parts += ["", "## What was measured", "", _versions(), "", *_machine(lines, machine)]
    if missing:
        parts += ["", "Not measured, because it was not there:", "", *(f"- {each}" for each in missing)]
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first row is the head; a column of which nothing is known is left out."""
    wide = [n for n, head in enumerate(rows[0]) if not head or any(row[n] for row in rows[1:])]
    lines = [f"| {' | '.join(row[n] for n in wide)} |" for row in rows]
    return [lines[0], f"|{' --- |' * len(wide)}", *lines[1:]]


def _rows(lines: Sequence[_Line]) -> list[list[str]]:
    lengths = sorted({int(n) for line in lines for n in line["ms"]})
    turns = max(line["turns"] for line in lines)
    head = ["store", "engine", *(f"n = {n:,}" for n in lengths), "16 at once", "1 ms away", "round trips"]
    rows = [[*head, "kB on the wire", f"MB after {turns:,} turns"]]
    for line in sorted(lines, key=lambda line: str(line["engine"])):
        name = f"**{line['name']}**" if line["ours"] else str(line["name"])
        ms = {int(n): figures for n, figures in line["ms"].items()}
        times = [f"{_round(ms[n][0])} ({_round(ms[n][1])})" if n in ms else "" for n in lengths]
        fewer = f" (after {line['turns']:,})" if line["turns"] < turns else ""
        rest = [
            "" if line["crowd"] is None else _round(line["crowd"]),
            "" if line["far"] is None else _round(line["far"]),
            "" if line["round_trips"] is None else f"{line['round_trips']:.0f}",
            "" if line["wire"] is None else f"{line['wire'] / 1000:,.1f}",
            "" if line["size"] is None else f"{line['size'] / 1e6:,.1f}{fewer}",
        ]
        rows.append([name, str(line["engine"]), *times, *rest])
    return rows


def _round(value: float) -> str:
    return f"{value:.2f}" if value < 2 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def wanted(lines: Sequence[_Line]) -> list[list[str]]:
    """Each of ours beside the others: what is compared, the engine, what came of it, what was wanted of it, whether it
    is reached (the last two empty where nothing was asked for)."""
    found: list[list[str]] = []

    def row(what: str, ratio: float, *, least: float | None = None, most: float | None = None) -> None:
        if least is None and most is None:
            bound, verdict = "–", ""
        elif least is not None:
            bound, verdict = f"≥ {least:g} ×", "reached" if ratio >= least else "**not reached**"
        else:
            bound, verdict = f"≤ {most:g} ×", "reached" if ratio <= (most or 0) else "**not reached**"
        found.append([what, ours["engine"], f"{ratio:.1f} ×", bound, verdict])

    for ours in (line for line in lines if line["ours"]):
        rivals = [r for r in lines if (r["kind"], r["engine"], r["ours"]) == (ours["kind"], ours["engine"], False)]
        mine = {int(n): figures[0] for n, figures in ours["ms"].items()}
        short, *_, long = mine
        is_graph, is_delta = "LangGraph" in ours["kind"], _DELTA in ours["kind"]
        name = f"{ours['name']} ({_DELTA})" if is_delta else ours["name"]
        if not is_graph:
            row(f"{name}: time at {long:,} by that at {short:,}", mine[long] / mine[short], most=_FLAT)
        for rival in rivals:
            pair = f"{name} beside {rival['name']}"
            theirs = {int(n): figures[0] for n, figures in rival["ms"].items()}
            if _FLOOR in rival["name"]:
                for n in mine if is_graph else (long,):
                    least = 1 if is_graph and n != short and not is_delta else None
                    row(f"{pair}: faster at {n:,}", theirs[n] / mine[n], least=least)
                continue
            least = None if is_graph else 2 if rival["window"] else 20
            row(f"{pair}: faster at {long:,}", theirs[long] / mine[long], least=least)
            for what, field in (("16 at once", "crowd"), ("with the server 1 ms away", "far")):
                if rival["window"] and rival[field] and ours[field]:
                    row(f"{pair}: faster, {what}", rival[field] / ours[field])
            if is_graph and rival["size"] and ours["size"]:
                least = None if is_delta else 20 if ours["engine"] == "PostgreSQL" else 50
                ratio = rival["size"] / ours["size"]
                # Who was too slow for all turns stored less than in all: where that is not enough it says nothing.
                if rival["turns"] == ours["turns"] or (least and ratio >= least):
                    row(f"{pair}: smaller", ratio, least=least)
    return found


def _machine(lines: Sequence[_Line], machine: Mapping[str, str]) -> list[str]:
    known = dict(machine)
    processors, load, minutes = (known.pop(name) for name in ("processors", "load", "minutes"))
    journals = []
    for journal in ("WAL", "rollback"):
        names = dict.fromkeys(
            str(line["name"]) for line in lines if line["journal"] == journal and _FLOOR not in line["name"]
        )
        if names:
            journals.append(f"; SQLite's journal is {journal} in {', '.join(names)}")
    durable = ", ".join(f"{name} {value}" for name, value in known.items()) + "".join(journals)
    why = "`synchronous` is SQLite's own choice, which none of these stores changes; Daram and the floor ask for FULL."
    return [
        f"{processors} processors, load {load} (one to two of it the run's own), {minutes} minutes.",
        "",
        f"How durable a write is: {durable}. {why}",
    ]


def _versions() -> str:
    known = []
    for name in _LIBRARIES:
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"Python {platform.python_version()} on {platform.machine()}; " + ", ".join(known) + "."


def picture(lines: Sequence[_Line]) -> str:
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


def _panel(title: str, lines: Sequence[_Line], low: float, top: float) -> list[str]:
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
        dashes = ' stroke-dasharray="4 3"' if _FLOOR in line["name"] else ""
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="{thick}"{dashes}/>')
        below = max(points[-1][1] - 4, below + 10)
        parts.append(
            f'<text x="{points[-1][0] - 3:.1f}" y="{below:.1f}" text-anchor="end" font-size="9" fill="{colour}">'
            f"{escape(str(line['name']))}</text>"
        )
    return parts
