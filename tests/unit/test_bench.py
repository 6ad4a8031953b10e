"""The measurements measure what they say: whoever writes by hand leaves the database that Daram would leave."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench import cache_turns, peers, peers_page, retrieval, sizes
from bench.__main__ import table
from bench.contenders import OWNER, TEXT, Daram, Grouped, OneByOne, prepared
from bench.turns import QUICK, Row, measure
from tests.faults.checks import check_file

from daram.store.sqlite.engine import SqliteStore
from daram.testing.servers import RedisServer


@pytest.mark.parametrize("contender", [Daram, OneByOne, Grouped])
async def test_a_contender_stores_messages(tmp_path: Path, contender: type[Daram] | type[OneByOne]) -> None:
    path = await prepared(tmp_path / "daram.db", 2, 10)
    it = contender(path)
    for i in range(300):
        await it.append(i % 2, "user" if i % 4 < 2 else "assistant", 20 if i % 4 < 2 else 0)
    await it.close()
    check_file(path)
    async with SqliteStore(path) as store:
        for name in ("c0", "c1"):
            conversation = await store.get(OWNER, name)
            messages = (await store.messages(OWNER, name, limit=1000)).items
            assert conversation.last_seq == conversation.version + 9 == len(messages) == 160
            assert {message.text for message in messages} == {TEXT}
            assert [message.role for message in messages[10:14]] == ["user", "assistant", "user", "assistant"]
            assert len(await store.search(OWNER, "message", conversation=name, limit=1000)) == 160


async def test_the_table_is_made(tmp_path: Path) -> None:
    few = QUICK._replace(rounds=4, turns=2, appends=4, lengths=(10, 100))
    _, rows = await measure(tmp_path, few, 0.0)
    printed = table(rows)
    assert "a turn at 100 messages" in printed
    assert printed.count("32 tasks") == 2
    assert all(isinstance(row, Row) and row.measured for row in rows)


async def test_the_table_of_caches_is_made(
    tmp_path: Path, redis_server: RedisServer, valkey_server: RedisServer
) -> None:
    few = cache_turns.Scale(rounds=1, alone=2, each=2, window=5, length=10)
    names = cache_turns.CACHES
    url = f"sqlite:///{tmp_path}"
    lines = await cache_turns.group("SQLite", "here", names, lambda name: f"{url}/{name}.db", None, redis_server, few)
    valkey_server.flush()
    databases = {"none": "0", "memory": "1"}
    lines += await cache_turns.by_distance("Redis", valkey_server, databases, redis_server, few)
    assert [(each.engine, each.away, each.cache) for each in lines] == [
        *(("SQLite", "here", name) for name in names),
        *(("Redis", away, name) for away in ("here", "2 ms") for name in databases),
    ]
    for each in lines:
        assert each.ms > 0
        assert each.per_second > 0
        assert each.hits is None if each.cache == "none" else each.hits
        assert (each.engine_ms is None) == (each.engine == "SQLite")
    assert cache_turns.table(lines).count("SQLite") == 4


async def test_what_is_weighed_is_in_the_storage(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    grown = await sizes.grown(lambda: SqliteStore(path), lambda: path.stat().st_size, 2, 300)
    assert grown > 2 * 300 * sizes.CHARACTERS
    async with SqliteStore(path) as store:
        texts = [m.text for name in ("c0", "c1") for m in (await store.messages(OWNER, name, limit=1000)).items]
    assert {len(text) for text in texts} == {sizes.CHARACTERS}
    assert len(set(texts)) == 600


async def test_what_search_finds_is_measured(tmp_path: Path) -> None:
    filled, *found = [row async for row in retrieval.measure("sqlite", retrieval.FILES[:1])]
    assert filled["passages"] == 40
    assert {(row["language"], row["mode"]) for row in found} == {
        (language, mode) for language in ("en", "ko") for mode in retrieval.MODES
    }
    for row in found:
        assert set(row) == {"engine", "language", "mode", "r1", "r5", "r10", "mrr", "ms", "cpu_ms", "questions"}
        assert row["questions"] == 40
        assert 50 < row["r1"] <= row["r5"] <= row["r10"] <= 100
        assert row["r1"] / 100 <= row["mrr"] <= 1
    by_mode = {(row["language"], row["mode"]): row["r1"] for row in found}
    assert all(by_mode[language, "hybrid"] >= by_mode[language, "lexical"] for language in ("en", "ko"))


async def test_what_search_costs_at_size_is_measured(tmp_path: Path) -> None:
    async with aclosing(retrieval.measure("sqlite", retrieval.FILES[:1], beside=250)) as rows:
        first = [await anext(rows) for _ in range(3)]
    assert [row.get("passages") for row in first] == [40, 250, None]
    assert first[2]["r10"] > 50  # found among what stands beside


async def test_the_stores_of_frameworks_are_measured_and_the_page_is_made(tmp_path: Path) -> None:
    scale = peers.QUICK._replace(lengths=(10, 30))
    found = await peers.measure(scale, ["SQLite", "Redis"], ["LangGraph", "OpenAI Agents"])
    lines = found["lines"]
    assert len([line for line in lines if line["ours"]]) == 4  # what is not installed is others'
    for line in lines:
        assert set(line["ms"]) == {10, 30}
        assert all(0 < median <= p99 for median, p99 in line["ms"].values())
        assert (line["crowd"] is not None) == (line["kind"] == peers.SESSIONS and line["name"] != peers.BY_HAND)
        if line["name"].startswith("InMemory"):
            continue
        if line["engine"] == "Redis":
            assert 1 < line["round_trips"] < 50
            assert line["wire"] > 800  # it sends two messages of 200 characters and receives twenty
            assert line["far"] > 1  # a reply comes 1 ms late; some are waited for at the same time
        else:
            assert line["size"] > 2000
            assert line["journal"] == "WAL"
    for folder in ("explanation", "images"):
        (tmp_path / folder).mkdir()
    page = peers_page.write(found, tmp_path)
    assert (tmp_path / peers_page.PAGE).read_text() == page
    assert "Redis appendfsync everysec" in page
    for line in lines:
        assert line["name"] in page
    picture = ElementTree.fromstring((tmp_path / peers_page.PICTURE).read_text())
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}polyline")) == len(lines)


def test_what_was_wanted_of_the_adapters_is_told_whether_it_is_reached_or_not() -> None:
    def line(name: str, ms: tuple[float, float, float], kind: str, **more: object) -> dict[str, object]:
        times = dict(zip(("10", "1000", "5000"), zip(ms, ms, strict=True), strict=True))
        known = {"ours": False, "window": False, "size": None, "crowd": None, "far": None, "turns": 500}
        return known | {"name": name, "kind": kind, "engine": "PostgreSQL", "ms": times} | more

    def told(*lines: dict[str, object]) -> list[tuple[str, str, str]]:
        return [(row[0].rpartition(": ")[2], row[2], row[4]) for row in peers_page.wanted(lines)]

    assert told(
        line("Ours", (4.0, 2.0, 2.0), "LangGraph", ours=True, size=10),
        line("InMemorySaver (the floor)", (2.0, 3.0, 1.0), "LangGraph"),
        line("Theirs", (9.0, 9.0, 9.0), "LangGraph", size=190),
    ) == [
        ("faster at 10", "0.5 ×", ""),
        ("faster at 1,000", "1.5 ×", "reached"),
        ("faster at 5,000", "0.5 ×", "**not reached**"),
        ("faster at 5,000", "4.5 ×", ""),
        ("smaller", "19.0 ×", "**not reached**"),
    ]
    assert told(
        line("Ours", (1.0, 1.0, 2.0), "OpenAI Agents", ours=True, window=True, crowd=1.0, far=1.0),
        line("Windowed", (4.0, 4.0, 4.0), "OpenAI Agents", window=True, crowd=2.0, far=3.0),
        line("by hand (the floor)", (1.0, 1.0, 1.0), "OpenAI Agents"),
        line("Whole", (4.0, 4.0, 38.0), "OpenAI Agents"),
    ) == [
        ("time at 5,000 by that at 10", "2.0 ×", "**not reached**"),
        ("faster at 5,000", "2.0 ×", "reached"),
        ("faster, 16 at once", "2.0 ×", ""),
        ("faster, with the server 1 ms away", "3.0 ×", ""),
        ("faster at 5,000", "0.5 ×", ""),
        ("faster at 5,000", "19.0 ×", "**not reached**"),
    ]
