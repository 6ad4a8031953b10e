"""``make bench-peers``: one turn in each framework, with its own stores and with Daram's adapter, in one run.

A turn reads what the model needs and adds two messages of 200 characters. LangGraph's turn is a whole run of a graph,
its in-memory saver the floor: the framework loads the whole state for each run. Stores of its own that are not
installed are left out, and said to be.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from agents import SQLiteSession
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

import daram
from daram.adapters.langchain import DaramChatMessageHistory
from daram.adapters.langgraph import DaramSaver
from daram.adapters.openai_agents import DaramSession
from daram.testing.servers import PostgresServer, RedisServer

LENGTHS = (10, 1_000, 5_000)
WINDOW = 20
Turn = Callable[[], Awaitable[object]]


class Row(NamedTuple):
    """Medians and 99th percentiles of a turn at each length, in milliseconds."""

    what: str
    times: list[tuple[float, float]]


def text(number: int) -> str:
    """200 characters."""
    return f"{number} {'the squirrel and the tuna ' * 8}"[:200]


def graph(saver: Any) -> Any:
    """A graph whose only node answers."""
    builder = StateGraph(MessagesState)
    builder.add_node("answer", lambda state: {"messages": [AIMessage(text(len(state["messages"])))]})
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver)


async def saver_turn(saver: Any, length: int) -> Turn:
    """A run on a thread of that length."""
    made = graph(saver)
    config = {"configurable": {"thread_id": f"thread-{length}"}}
    said = [(HumanMessage if n % 2 == 0 else AIMessage)(text(n)) for n in range(length)]
    await made.aupdate_state(config, {"messages": said}, as_node="answer")
    return lambda: made.ainvoke({"messages": [HumanMessage(text(0))]}, config)


async def session_turn(session: Any, length: int) -> Turn:
    """The last 20 items, then two new ones."""
    items: list[Any] = [{"role": ("user", "assistant")[n % 2], "content": text(n)} for n in range(length)]
    await session.add_items(items)

    async def turn() -> None:
        await session.get_items(WINDOW)
        await session.add_items(items[:2])

    return turn


async def history_turn(history: Any, length: int) -> Turn:
    """The last 20 messages, then two new ones."""
    await history.aadd_messages([(HumanMessage if n % 2 == 0 else AIMessage)(text(n)) for n in range(length)])

    async def turn() -> None:
        await history.aget_messages()
        await history.aadd_messages([HumanMessage(text(0)), AIMessage(text(1))])

    return turn


async def measure(what: str, prepare: Callable[[int], Awaitable[Turn]], repeats: int) -> Row:
    """One row."""
    times = []
    for length in LENGTHS:
        turn = await prepare(length)
        for _ in range(3):
            await turn()
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            await turn()
            taken.append((time.perf_counter() - start) * 1000)
        times.append((statistics.median(taken), statistics.quantiles(taken, n=100)[98]))
    row = Row(what, times)
    print(as_line(row), flush=True)
    return row


def as_line(row: Row) -> str:
    """A line of the table, as Markdown."""
    return f"| {row.what} | " + " | ".join(f"{median:.1f} ({p99:.1f})" for median, p99 in row.times) + " |"


async def size_after(saver: Any, turns: int, size: Callable[[], Awaitable[int]]) -> int:
    """Bytes on disk that a thread of that many turns takes."""
    made = graph(saver)
    before = await size()
    for n in range(turns):
        await made.ainvoke({"messages": [HumanMessage(text(n))]}, {"configurable": {"thread_id": "size"}})
    return await size() - before


async def run(repeats: int, turns: int) -> tuple[list[Row], list[tuple[str, int]]]:
    """Everything that is installed."""
    rows, sizes = [], []
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daram-peers-")))
        postgres = stack.enter_context(PostgresServer())
        redis = stack.enter_context(RedisServer("redis"))
        for name in ("daram", "peer"):
            postgres.run(f"CREATE DATABASE {name}")
        urls = {"SQLite": f"sqlite:///{directory}/d.db", "PostgreSQL": postgres.url_of("daram"), "Redis": redis.url}

        def on_disk(name: str) -> Callable[[], Awaitable[int]]:
            async def size() -> int:
                return sum(path.stat().st_size for path in directory.glob(f"{name}*"))

            return size

        def in_postgres(name: str) -> Callable[[], Awaitable[int]]:
            async def size() -> int:
                with postgres.connect(name) as connection:
                    row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
                    assert row is not None
                    return int(row[0])

            return size

        floor = InMemorySaver()
        rows.append(await measure("LangGraph, in memory", lambda n: saver_turn(floor, n), repeats))
        for engine, url in urls.items():
            memory = await stack.enter_async_context(daram.open(url))
            saver = DaramSaver(memory, owner="bench")
            rows.append(
                await measure(f"DaramSaver, {engine}", lambda n, saver=saver: saver_turn(saver, n), repeats)  # type: ignore[misc]
            )
            if engine != "Redis":
                size = on_disk("d.db") if engine == "SQLite" else in_postgres("daram")
                sizes.append((f"DaramSaver, {engine}", await size_after(saver, turns, size)))
            rows.append(
                await measure(
                    f"DaramSession, {engine}",
                    lambda n, memory=memory: session_turn(DaramSession(memory, "s", f"{n}"), n),  # type: ignore[misc]
                    repeats,
                )
            )
            rows.append(
                await measure(
                    f"DaramChatMessageHistory, {engine}",
                    lambda n, memory=memory: history_turn(  # type: ignore[misc]
                        DaramChatMessageHistory(f"{n}", owner="h", window=WINDOW, memory=memory), n
                    ),
                    repeats,
                )
            )
        rows.append(await measure("Agents SDK, SQLiteSession", lambda n: own_session(directory, n), repeats))
        if importlib.util.find_spec("langgraph.checkpoint.sqlite") is not None:
            from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

            theirs = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(f"{directory}/peer.db"))
            await theirs.setup()
            rows.append(await measure("LangGraph, SQLite", lambda n: saver_turn(theirs, n), repeats))
            sizes.append(("LangGraph, SQLite", await size_after(theirs, turns, on_disk("peer.db"))))
        else:
            print("| LangGraph, SQLite | not installed |")
        if importlib.util.find_spec("langgraph.checkpoint.postgres") is not None:
            from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

            other = await stack.enter_async_context(AsyncPostgresSaver.from_conn_string(postgres.url_of("peer")))
            await other.setup()
            rows.append(await measure("LangGraph, PostgreSQL", lambda n: saver_turn(other, n), repeats))
            sizes.append(("LangGraph, PostgreSQL", await size_after(other, turns, in_postgres("peer"))))
        else:
            print("| LangGraph, PostgreSQL | not installed |")
    return rows, sizes


async def own_session(directory: Path, length: int) -> Turn:
    """The SDK's own session, in a file."""
    return await session_turn(SQLiteSession(f"{length}", directory / "agents.db"), length)


def main() -> None:
    """Measure, print, and write the table where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="A turn in each framework.")
    parser.add_argument("--repeats", type=int, default=30, help="turns per figure")
    parser.add_argument("--turns", type=int, default=500, help="turns of the thread whose size is told")
    parser.add_argument("--write", type=Path, help="the page to write the tables to")
    options = parser.parse_args()
    head = "| one turn, ms: median (p99) | " + " | ".join(f"n = {n:,}" for n in LENGTHS) + " |\n|---|---|---|---|"
    print(head)
    rows, sizes = asyncio.run(run(options.repeats, options.turns))
    table = [f"| on disk after {options.turns} turns | MB |", "|---|---|"]
    table += [f"| {what} | {size / 1e6:.1f} |" for what, size in sizes]
    print("\n" + "\n".join(table))
    if options.write is not None:
        about = f"Measured on {platform.machine()}, Python {platform.python_version()}, by `make bench-peers`."
        lines = ["# Beside the frameworks' own stores", "", about, "", head, *map(as_line, rows), "", *table, ""]
        options.write.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
