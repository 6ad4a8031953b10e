"""The measurements on PostgreSQL measure what they say: by hand leaves the database that Daram would leave."""

from __future__ import annotations

import pytest
from bench.contenders import OWNER, TEXT
from bench.postgres_by_hand import ByHand, Daram
from bench.postgres_turns import QUICK, fill, measure
from tests.postgres import Databases

from daram.store.postgres.engine import PostgresStore
from daram.transfer.check import check


@pytest.mark.parametrize("contender", [Daram, ByHand])
async def test_a_contender_stores_messages(databases: Databases, contender: type[Daram] | type[ByHand]) -> None:
    url = databases.url("bench")
    async with PostgresStore(url) as store:
        await fill(store, "c", 10)
        it = contender(url)
        for _ in range(3):
            assert await it.append("c", "user", 5) == 5
            assert await it.append("c", "assistant", 0) == 0
            assert await it.turn("c", 20) > 5
        await it.close()
        conversation = await store.get(OWNER, "c")
        messages = await store.tail(OWNER, "c", 100)
        assert (conversation.last_seq, conversation.version, len(messages)) == (22, 13, 22)
        assert [m.role for m in messages[10:]] == ["user", "assistant"] * 6
        assert {m.text for m in messages} == {TEXT}
        assert conversation.head == messages[-1].id
        assert await store.answers(OWNER, "c") == []
        assert len(await store.search(OWNER, "message", limit=100)) == 22
        assert (await check(store))[1] == []


async def test_it_measures(databases: Databases, capsys: pytest.CaptureFixture[str]) -> None:
    await measure(databases.url("bench"), QUICK._replace(rounds=1, turns=2, appends=1, lengths=(10, 100)))
    printed = capsys.readouterr().out
    assert "a turn at     100 messages" in printed
    assert printed.count("32 tasks") == 2
    assert printed.count("one task") == 2
