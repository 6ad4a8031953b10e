"""The recent messages: whole groups, no orphans, no failures, in order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daram import assistant, system, tool, user
from daram.context.window import groups, window
from daram.model import Message, Part, Status


def call(*ids: str, text: str = "", status: Status = "complete") -> Message:
    parts = [Part(type="tool_call", data={"call_id": id, "name": "look", "arguments": "{}"}) for id in ids]
    return msgspec.structs.replace(assistant(text, parts=parts), status=status)


def texts(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages]


def flat(messages: Sequence[Message]) -> list[Message]:
    return [message for group in groups(messages) for message in group]


def calls_of(message: Message) -> list[str]:
    return [part.data["call_id"] for part in message.parts if part.type == "tool_call"]


def results_of(message: Message) -> list[str]:
    return [part.data["call_id"] for part in message.parts if part.type == "tool_result"]


def test_the_last_messages() -> None:
    history = [user(str(n)) if n % 2 == 0 else assistant(str(n)) for n in range(10)]
    assert texts(window(history, 3)) == ["7", "8", "9"]
    assert texts(window(history, 100)) == texts(history)
    assert window([], 3) == []


def test_calls_and_results_stay_together() -> None:
    history = [user("q"), call("a", "b"), tool("1", call_id="a"), tool("2", call_id="b"), assistant("so"), user("next")]
    assert [len(group) for group in groups(history)] == [1, 3, 1, 1]
    assert texts(window(history, 5)) == ["", "1", "2", "so", "next"]
    for limit in (2, 3, 4):
        assert texts(window(history, limit)) == ["so", "next"]


def thought() -> Message:
    return assistant("", parts=[Part(type="reasoning", data={"text": "hm"})])


@pytest.mark.parametrize(
    "step",
    [
        [call("a"), call("b")],
        [call("a", text="I look."), thought(), call("b")],
        [call("a", text="I look."), call("b", text="And there.")],
    ],
)
def test_calls_of_one_step_that_are_messages_of_their_own(step: list[Message]) -> None:
    results = [tool("2", call_id="b"), tool("1", call_id="a")]
    [asked, group, said] = groups([user("q"), *step, *results, assistant("so")])
    assert calls_of(group[0]) == ["a", "b"] and group[1:] == tuple(results)
    assert group[0].text == "\n".join(text for text in texts(step) if text)
    assert (asked[0].text, said[0].text) == ("q", "so")


def test_calls_that_are_not_one_step_stay_apart() -> None:
    """A call that was never answered does not take a later one with it."""
    history = [user("q"), call("a"), call("b"), tool("1", call_id="b")]
    assert [calls_of(group[0]) for group in groups(history)] == [[], ["b"]]
    history = [user("q"), call("a"), assistant("no"), call("b"), tool("1", call_id="b")]
    assert [(calls_of(group[0]), group[0].text) for group in groups(history)] == [([], "q"), ([], "no"), (["b"], "")]
    assert groups([call(str(n)) for n in range(300)]) == []


def test_a_group_larger_than_the_window_is_given_whole_when_it_is_the_last() -> None:
    history = [user("q"), call("a", "b"), tool("1", call_id="a"), tool("2", call_id="b")]
    assert texts(window(history, 2)) == ["", "1", "2"]


@pytest.mark.parametrize(
    "history",
    [
        [tool("1", call_id="a"), user("q")],
        [tool("1"), user("q")],
        [call("b"), tool("1", call_id="a"), user("q")],
        [call("a"), user("q")],
        [call("a", "b"), tool("1", call_id="a"), user("q")],
        [call("a", status="failed"), tool("1", call_id="a"), user("q")],
        [assistant(""), user("q")],
        [assistant("  \n"), user("q")],
        [msgspec.structs.replace(assistant("half"), status="failed"), user("q")],
    ],
)
def test_what_no_model_may_be_given_is_left_out(history: list[Message]) -> None:
    assert texts(flat(history)) == ["q"]


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
def test_answers_that_were_cut_stay(status: Status) -> None:
    history = [user("q"), msgspec.structs.replace(assistant("half an ans"), status=status), user("go on")]
    assert texts(flat(history)) == ["q", "half an ans", "go on"]


def test_the_words_beside_an_unanswered_call_stay() -> None:
    (kept, _) = flat([call("a", text="let me look"), user("q")])
    assert kept.text == "let me look"
    assert calls_of(kept) == []


def test_an_answer_may_hold_its_results_itself() -> None:
    whole = assistant(
        "done",
        parts=[
            Part(type="tool_call", data={"call_id": "a", "name": "look", "arguments": "{}"}),
            Part(type="tool_result", data={"call_id": "a", "output": "1"}),
        ],
    )
    assert flat([whole, user("q")])[0] == whole


def test_a_result_that_names_no_call_answers_the_first() -> None:
    assert texts(flat([call("a", "b"), tool("1"), tool("2"), user("q")])) == ["", "1", "2", "q"]


ids = st.sampled_from(["a", "b", "c"])
statuses: st.SearchStrategy[Status] = st.sampled_from(["complete", "incomplete", "cancelled", "failed"])
messages = st.lists(
    st.one_of(
        st.builds(user, st.sampled_from(["", "q", "\ud800"])),
        st.builds(system, st.just("s")),
        st.builds(lambda text, status: msgspec.structs.replace(assistant(text), status=status), st.just("t"), statuses),
        st.builds(lambda ids, text, status: call(*ids, text=text, status=status), st.lists(ids), st.just(""), statuses),
        st.builds(lambda call_id: tool("r", call_id=call_id), ids | st.none()),
    ),
    max_size=25,
)


@given(messages, st.integers(1, 30))
def test_no_window_parts_calls_from_results(history: list[Message], limit: int) -> None:
    kept = window(history, limit)
    assert kept == flat(history)[len(flat(history)) - len(kept) :], "the newest, in order"
    waiting: list[str] = []
    for message in kept:
        if message.role == "tool":
            assert waiting, "a result without its call"
            for answered in results_of(message) or waiting[:1]:
                if answered in waiting:
                    waiting.remove(answered)
        else:
            assert not waiting, "a call without its result"
            waiting = list(dict.fromkeys(calls_of(message)))
    assert not waiting
    assert all(message.status != "failed" for message in kept)
    last_group = groups(history)[-1] if groups(history) else ()
    assert len(kept) <= max(limit, len(last_group))
