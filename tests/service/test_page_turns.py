"""What happens in the page's tabs, over its real sockets, with the real server killed and started again in between."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.service.served import Page, model_server, scripted_page
from tests.service.tab import Tab

import daram
from daram.memory import Memory
from daram.ui.strings import ENGLISH, KOREAN

HISTORY = 200  # messages that the page shows of a conversation


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with scripted_page(tmp_path_factory.mktemp("turns"), delay=0.02) as running:
        yield running


@asynccontextmanager
async def stored(page: Page) -> AsyncIterator[Memory]:
    """What is on the disk, read by another process: this one."""
    async with daram.open(f"sqlite:///{page.data / 'daram.db'}") as memory:
        yield memory


async def tail(page: Page, thread: str) -> list[tuple[str, str, str]]:
    async with stored(page) as memory:
        return [(m.role, m.text, m.status) for m in await memory.tail("local", thread, 100)]


# --- greeting, turns, titles ---


@pytest.mark.parametrize(("language", "table"), [("en-US,en;q=0.9", ENGLISH), ("ko-KR,ko;q=0.9", KOREAN)])
async def test_a_new_chat_greets_and_stores_nothing(page: Page, language: str, table: object) -> None:
    async with Tab(page, language=language) as tab:
        before = await tab.list()
        await tab.until(lambda tab: tab.shown)
        assert tab.shown == [table.greeting]
        assert await tab.list() == before


async def test_a_turn_is_streamed_stored_and_listed(page: Page) -> None:
    async with Tab(page) as tab:
        await tab.until(lambda tab: tab.shown)
        question = await tab.say("Call a squirrel tuna from now on. [[tokens 40]]")
        await tab.until(lambda tab: any(step.get("streaming") and step["output"] for step in tab.steps.values()))
        assert tab.loading
        answer = await tab.until_answered()
        assert answer == " ".join(f"word{n}" for n in range(1, 41))
        assert (await tab.list())[0].startswith("Call a squirrel tuna")
        async with stored(page) as memory:
            messages = await memory.tail("local", tab.thread)
        assert [(m.id, m.role) for m in messages[:1]] == [(question, "user")]
        assert messages[1].id in tab.steps  # the answer's id is Chainlit's id too
        assert [m.text for m in messages] == ["Call a squirrel tuna from now on. [[tokens 40]]", answer]


async def test_the_models_title_reaches_the_list_without_a_reload(page: Page) -> None:
    async with Tab(page) as tab:
        await tab.say("Where do they keep them? [[title The keeping of nuts]]")
        await tab.until_answered()
        await tab.until(lambda tab: any("The keeping of nuts" in why for why in tab.interactions))
        assert (await tab.list())[0] == "The keeping of nuts"


async def test_the_conversation_is_remembered_in_the_next_turn_and_after_a_reload(page: Page) -> None:
    async with Tab(page) as tab:
        await tab.say("From now on call a squirrel tuna.")
        await tab.until_answered()
        thread = tab.thread
    async with Tab(page, thread=thread) as again:
        await again.until(lambda tab: len(tab.shown) == 2)
        assert again.interactions[0] == "resume"
        await again.say("What do you call a squirrel?")
        assert "tuna" in await again.until_answered(2)


# --- tabs that come and go ---


async def test_a_reload_in_mid_answer_shows_it_going_on(page: Page) -> None:
    async with Tab(page) as tab:
        await tab.say("[[delay 0.1]] [[tokens 9000]]")  # longer than any of this takes
        await tab.until(lambda tab: any("word5" in text for text in tab.shown[2:]))
        thread = tab.thread
    # The tab is gone, the answer is not.
    async with Tab(page, thread=thread) as again:
        await again.until(lambda tab: tab.loading and len(tab.shown) == 2)
        first = again.shown[-1]
        assert first.startswith("word1 ")
        await again.until(lambda tab: len(tab.shown[-1]) > len(first) + 20)
        await again.stop()
        whole = await again.until_answered()
    said = " ".join(f"word{n}" for n in range(1, whole.count("word") + 1))
    assert whole == f"{said}\n\n*{ENGLISH.cancelled}*"  # none lost, none twice
    assert [(role, status) for role, _, status in await tail(page, thread)] == [
        ("user", "complete"),
        ("assistant", "cancelled"),
    ]


async def test_two_tabs_show_the_same(page: Page) -> None:
    async with Tab(page) as one:
        await one.say("first")
        await one.until_answered()
        async with Tab(page, thread=one.thread) as two:
            await two.until(lambda tab: len(tab.shown) == 2)
            await one.say("[[tokens 30]]")
            answer = await one.until_answered(2)
            assert await two.until_answered(2) == answer
            assert two.shown == one.shown[1:]  # but for the greeting
            last = next(id for id, step in two.steps.items() if step["output"] == "[[tokens 30]]")
            await two.edit(last, "[[say edited in the other tab]]")
            for tab in (one, two):
                await tab.until(lambda tab: tab.shown[-1] == "edited in the other tab" and not tab.loading)
            assert one.shown == two.shown


async def test_two_tabs_that_speak_at_once_both_get_their_answer(page: Page) -> None:
    async with Tab(page) as one:
        await one.say("first")
        await one.until_answered()
        async with Tab(page, thread=one.thread) as two:
            await two.until(lambda tab: len(tab.shown) == 2)
            await asyncio.gather(one.say("[[say A]]"), two.say("[[say B]]"))
            await asyncio.gather(one.until_answered(3), two.until_answered(3))
        said = [text for _, text, _ in await tail(page, one.thread)]
        assert said[2:] in (["[[say A]]", "A", "[[say B]]", "B"], ["[[say B]]", "B", "[[say A]]", "A"])


async def test_a_connection_that_comes_back_finds_the_answer(page: Page) -> None:
    async with Tab(page) as tab:
        await tab.say("[[delay 0.05]] [[tokens 30]]")
        await tab.until(lambda tab: any("word2" in text for text in tab.shown[2:]))
    async with Tab(page, thread=tab.thread, session=tab.session) as same:
        assert (await same.until_answered()).endswith("word30")
        assert len(same.shown) == 2


async def test_an_address_of_no_conversation_says_so(page: Page) -> None:
    async with Tab(page, thread="no-such-thread", language="ko") as tab:
        await tab.until(lambda tab: tab.errors)
        assert tab.errors == [KOREAN.not_found]


async def test_of_a_long_conversation_the_end_is_shown(page: Page) -> None:
    async with stored(page) as memory:
        for start in range(0, 400, 100):
            batch = [daram.user(f"message {n}") for n in range(start, start + 100)]
            await memory.append("local", "a long one", batch, create=True)
    async with Tab(page, thread="a long one", language="ko") as tab:
        await tab.until(lambda tab: len(tab.shown) == HISTORY + 1)
        assert tab.shown[0] == f"*{KOREAN.earlier.format(shown=HISTORY)}*"
        assert tab.shown[1:] == [f"message {n}" for n in range(400 - HISTORY, 400)]


# --- stop, edit ---


async def test_stop_keeps_what_was_said(page: Page) -> None:
    async with Tab(page, language="ko-KR") as tab:
        await tab.say("[[delay 0.1]] [[tokens 9000]]")
        await tab.until(lambda tab: any("word5" in text for text in tab.shown[2:]))
        await tab.stop()
        shown = await tab.until_answered()
        assert shown.endswith(f"\n\n*{KOREAN.cancelled}*")
        (_, said, status) = (await tail(page, tab.thread))[1]
        assert status == "cancelled"
        assert shown == f"{said}\n\n*{KOREAN.cancelled}*"
        assert "word5" in said


async def test_an_edit_opens_a_branch_beside_what_was_said(page: Page) -> None:
    async with Tab(page) as tab:
        first = await tab.say("[[say one]]")
        await tab.until_answered()
        second = await tab.say("[[say two]]")
        await tab.until_answered(2)
        await tab.edit(second, "[[say two, edited]]")
        assert await tab.until_answered(2) == "two, edited"
        assert tab.shown[1:] == ["[[say one]]", "one", "[[say two, edited]]", "two, edited"]
        await tab.edit(first, "[[say a new beginning]]")
        assert await tab.until_answered() == "a new beginning"
        assert tab.shown[1:] == ["[[say a new beginning]]", "a new beginning"]
        await tab.say("[[say and on]]")
        assert await tab.until_answered(2) == "and on"
    async with stored(page) as memory:
        said = [m.text for m in await memory.tail("local", tab.thread)]
        assert said == ["[[say a new beginning]]", "a new beginning", "[[say and on]]", "and on"]
        assert [m.text for m in await memory.branches("local", tab.thread, first)] == [
            "[[say one]]",
            "[[say a new beginning]]",
        ]
        assert len(await memory.branches("local", tab.thread, second)) == 2
    async with Tab(page, thread=tab.thread) as again:
        await again.until(lambda tab: tab.shown == said)


# --- what others do in the same store ---


async def test_an_answer_that_another_process_makes_is_shown(page: Page) -> None:
    async with stored(page) as memory:
        turn = await memory.begin_turn(
            "local", "elsewhere", [daram.user("asked in the terminal")], answer_id="a1", create=True
        )
        assert turn.answer is not None
        await memory.checkpoint("local", "elsewhere", "a1", turn.answer.token, "the first half")
        async with Tab(page, thread="elsewhere") as tab:
            await tab.until(lambda tab: tab.shown == ["asked in the terminal", "the first half"] and tab.loading)
            text = "the first half, and the second"
            await memory.finish_turn("local", "elsewhere", "a1", turn.answer.token, text=text)
            assert await tab.until_answered() == text
            assert tab.shown == ["asked in the terminal", text]


async def test_a_question_that_nobody_answered_can_be_asked_again(page: Page) -> None:
    async with stored(page) as memory:
        await memory.append("local", "cut short", [daram.user("[[say here I am]]")], create=True)
    async with Tab(page, thread="cut short") as tab:
        await tab.until(lambda tab: tab.actions)
        (retry,) = tab.actions.values()
        assert (await tab.click(retry)).status_code == 200
        assert await tab.until_answered() == "here I am"
    assert [text for _, text, _ in await tail(page, "cut short")] == ["[[say here I am]]", "here I am"]


# --- the list ---


async def test_rename_search_and_delete(page: Page) -> None:
    async with Tab(page) as tab:
        await tab.say("[[say something]]")
        await tab.until_answered()
        await tab.until(lambda tab: any(why.startswith("title ") for why in tab.interactions))
        thread = tab.thread
        renamed = await tab.http.put("/project/thread", json={"threadId": thread, "name": "도토리 창고 Ñandú"})
        assert renamed.status_code == 200
        assert await tab.list("창고 ñandú") == ["도토리 창고 Ñandú"]
        assert await tab.list("no such name") == []
        opinion = {"feedback": {"forId": f"run-{list(tab.steps)[-1]}", "value": 1, "threadId": thread}}
        given = await tab.http.put("/feedback", json={**opinion, "sessionId": tab.session})
        assert given.status_code == 200
        deleted = await tab.http.request("DELETE", "/project/thread", json={"threadId": thread})
        assert deleted.status_code == 200
        assert await tab.list("창고") == []
        again = await tab.http.request("DELETE", "/project/thread", json={"threadId": thread})
        assert again.status_code == 404
        # The tab is still open on what is gone: it says so, and brings nothing back.
        await tab.say("are you there?")
        await tab.until(lambda tab: any(ENGLISH.problems["gone"] in text for text in tab.shown) and not tab.loading)
        assert tab.actions == {}
        assert await tab.list("창고") == []


async def test_an_opinion_is_shown_after_a_reload(page: Page) -> None:
    async with Tab(page) as tab:
        await tab.say("[[say well said]]")
        await tab.until_answered()
        run = next(step["id"] for step in tab.steps.values() if step["type"] == "run")
        opinion = {"forId": run, "value": 1, "threadId": tab.thread}
        await tab.http.put("/feedback", json={"feedback": opinion, "sessionId": tab.session})
    async with Tab(page, thread=tab.thread) as again:
        await again.until(lambda tab: len(tab.shown) == 2)
        assert again.steps[run]["feedback"]["value"] == 1


# --- what goes wrong ---


async def test_a_failed_answer_is_explained_and_tried_again_without_a_second_message(tmp_path: Path) -> None:
    with model_server(tmp_path) as model:
        settings = {"OPENAI_BASE_URL": model.url, "DARAM_MODEL": "openai:scripted", "DARAM_TITLES": "off"}
        with Page(tmp_path / "data", tmp_path, **settings) as page:
            model.stop()
            async with Tab(page) as tab:
                await tab.say("Are you there?")
                shown = await tab.until_answered()
                assert shown.startswith(f"**{ENGLISH.problems['model_unavailable']}**\n\n")
                assert len(shown.splitlines()[-1]) > 20  # what to do, in Daram's own words
                (retry,) = tab.actions.values()
                model.start()
                assert (await tab.click(retry)).status_code == 200
                # The line that said what is wrong with the model goes, too.
                await tab.until(lambda tab: tab.shown[1:] == ["Are you there?", "You said: Are you there?"])
                await tab.until(lambda tab: not tab.loading)
            async with stored(page) as memory:
                messages = await memory.tail("local", tab.thread)
                assert [(m.role, m.status) for m in messages] == [("user", "complete"), ("assistant", "complete")]
                assert len(await memory.branches("local", tab.thread, messages[1].id)) == 2  # the failed one is kept


async def test_an_answer_that_breaks_off_keeps_what_was_said(page: Page) -> None:
    async with Tab(page, language="ko") as tab:
        await tab.say("[[tokens 10]] [[cut 4]]")
        shown = await tab.until_answered()
        assert shown.startswith("word1 word2 word3 word4\n\n**")
        assert KOREAN.problems["model_broken"] in shown
        assert [action["label"] for action in tab.actions.values()] == [KOREAN.retry]
    async with Tab(page, thread=tab.thread, language="en") as again:
        await again.until(lambda tab: tab.actions)
        assert again.shown[-1] == f"word1 word2 word3 word4\n\n**{ENGLISH.problems['model_broken']}**"


async def test_a_message_that_is_too_long_is_refused_in_words(tmp_path: Path) -> None:
    with scripted_page(tmp_path, DARAM_CONTEXT_TOKENS="1000") as page:
        async with Tab(page) as tab:
            # For the store (1 MiB; also more than a socket takes by itself), then for the model.
            for count, (size, code) in enumerate([(200_000, "too_large"), (20_000, "message_too_long")], 1):
                await tab.say("squirrel " * size)
                await tab.until(lambda tab, shown=1 + 2 * count: not tab.loading and len(tab.shown) == shown)
                assert tab.shown[-1].startswith(f"**{ENGLISH.problems[code]}**\n\n")
            assert tab.actions == {}
            assert await tab.list() == []
            await tab.say("short")
            assert await tab.until_answered() == "You said: short"


# --- the model is not ready ---

_LOADING = """
import asyncio, sys
from pathlib import Path
import uvicorn
from daram.llm.base import Delta, Options
from daram.cli.serve import _say_where
from daram.service.asgi import create_app
from daram.settings import Settings

class Loading:
    name, context_tokens, prefers_notes = "loading", 4096, False
    async def ready(self):
        waiting = Path(sys.argv[1]) / "progress"
        return waiting.read_text() if waiting.exists() else None
    async def stream(self, messages, options=Options()):
        yield Delta(text="here", finish="stop")
    def count_tokens(self, text): return None
    async def close(self): pass

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        await _say_where(settings, self.servers[0].sockets[0])

settings = Settings.from_env(data=sys.argv[1] + "/data", store="memory://", titles=False)
app = create_app(settings, model=Loading())
Server(uvicorn.Config(app, port=0, log_level="warning")).run()
"""


async def test_a_line_says_how_far_the_model_is(tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    progress.write_text("loading 10 %")
    program = [sys.executable, "-c", _LOADING, str(tmp_path)]
    with Page(tmp_path / "data", tmp_path, program=program) as page:
        async with Tab(page, language="ko") as tab:
            await tab.until(lambda tab: KOREAN.not_ready.format(line="loading 10 %") in tab.shown)
            progress.write_text("loading 90 %")
            await tab.until(lambda tab: KOREAN.not_ready.format(line="loading 90 %") in tab.shown)
            assert len(tab.shown) == 2
            progress.unlink()
            await tab.until(lambda tab: len(tab.shown) == 1)
            await tab.say("hi")
            assert await tab.until_answered() == "here"


# --- kill -9 ---


async def test_the_story(tmp_path: Path) -> None:
    """Tell it, kill the server, start it, find the conversation in the list, open it, ask."""
    with scripted_page(tmp_path) as page:
        async with Tab(page) as tab:
            await tab.say("다람쥐를 다랑어라고 불러 줘. [[title 다람쥐의 이름]]")
            await tab.until_answered()
            await tab.until(lambda tab: any(why.startswith("title ") for why in tab.interactions))
            thread = tab.thread
            page.kill()
        page.start()
        async with Tab(page) as fresh:
            assert await fresh.list("다람쥐") == ["다람쥐의 이름"]
        async with Tab(page, thread=thread, language="ko-KR") as again:
            await again.until(lambda tab: len(tab.shown) == 2)
            await again.say("다람쥐를 뭐라고 부르지?")
            assert "다랑어" in await again.until_answered(2)
        assert page.strangers() == []


async def test_a_half_finished_answer_is_shown_as_such_and_can_be_asked_for_again(tmp_path: Path) -> None:
    with scripted_page(tmp_path, DARAM_TITLES="off") as page:
        async with Tab(page) as tab:
            await tab.say("[[delay 0.1]] [[tokens 9000]]")
            await tab.until(lambda tab: any("word30" in text for text in tab.shown[2:]))
            thread = tab.thread
            page.kill()
        page.start()
        # The tab that was open comes back by itself, with its own session and the conversation that it showed.
        async with Tab(page, thread=thread, session=tab.session, language="ko-KR") as again:
            await again.until(lambda tab: tab.actions)
            assert not again.loading
            assert again.shown[0] == "[[delay 0.1]] [[tokens 9000]]"
            assert again.shown[1].startswith("word1 word2 ")
            assert again.shown[1].endswith(f"\n\n*{KOREAN.incomplete}*")
            (retry,) = again.actions.values()
            assert (await again.click(retry)).status_code == 200
            await again.until(lambda tab: tab.loading and tab.shown[-1].startswith("word1"))
            await again.stop()
            await again.until_answered()
            assert len(again.shown) == 2
        assert [role for role, _, _ in await tail(page, thread)] == ["user", "assistant"]


def test_chainlits_handlers_are_ours(tmp_path: Path) -> None:
    """The events that the page takes over exist in this Chainlit: a new version must not make ours idle."""
    code = """
import sys
from pathlib import Path
from daram.ui import home
server = home.load(Path(sys.argv[1]))
before = dict(server.sio.handlers["/"])
assert {"connection_successful", "client_message", "edit_message", "stop"} <= set(before), before
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
