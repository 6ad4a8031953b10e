"""Counts the tests of the matrix by engine, face and cache, and prints them as a table at the end of the run."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest

Cell = tuple[str, str, str]
CELL = "matrix cell"
# Reports come in any order.
ORDER = ("none", "memory", "SQLite", "PostgreSQL", "Redis", "Valkey", "Redis Cluster", "Django", "memory, Redis")


class MatrixTable:
    """A plug-in of pytest; under xdist the workers' reports come to the one of the main process."""

    def __init__(self) -> None:
        self.counts: dict[Cell, Counter[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tests of a class with ``cell`` carry it in their reports."""
        for item in items:
            cell: Cell | None = getattr(getattr(item, "cls", None), "cell", None)
            if cell is not None:
                item.user_properties.append((CELL, list(cell)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test counts once: as passed by its call, as failed by whatever failed first."""
        for name, value in report.user_properties:
            if name == CELL and (report.when == "call" or report.outcome != "passed"):
                assert isinstance(value, list)
                self.counts.setdefault(tuple(value), Counter())[report.outcome] += 1

    def lines(self) -> list[str]:
        """The table in Markdown."""
        caches = sorted({cache for _, _, cache in self.counts}, key=ORDER.index)
        names = ["no cache" if cache == "none" else cache for cache in caches]
        made = [f"| engine | face | {' | '.join(names)} |", "|---|---|" + "---|" * len(caches)]
        rows = {(engine, face) for engine, face, _ in self.counts}
        for engine, face in sorted(rows, key=lambda row: (ORDER.index(row[0]), row[1])):
            cells = [_told(self.counts.get((engine, face, cache))) for cache in caches]
            made.append(f"| {engine} | {face} | {' | '.join(cells)} |")
        return made

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print it."""
        if self.counts:
            terminalreporter.section(f"the matrix, {datetime.now(UTC):%Y-%m-%d}: tests by engine, face and cache")
            for line in self.lines():
                terminalreporter.line(line)


def _told(counts: Counter[str] | None) -> str:
    """As few words as it takes."""
    if not counts:
        return "-"
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if counts[outcome])
