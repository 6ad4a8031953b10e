"""Sizes in tokens: close enough on prose of every script, whole for every kind of message, safe on any text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daram import assistant, tool, user
from daram.model import Part
from daram.text.tokens import IMAGE_TOKENS, MESSAGE_OVERHEAD, REPLY_OVERHEAD, TokenCounter, estimate

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("abcd", 1),
        ("abcde", 2),
        ("다람쥐", 3),
        ("다람쥐다", 3),
        ("🐿", 1),
        ("é" * 4, 2),
        ("\ud800", 1),
    ],
)
def test_an_estimate_is_utf8_bytes_by_four(text: str, tokens: int) -> None:
    assert estimate(text) == tokens


@given(ANY_TEXT, ANY_TEXT)
def test_estimates_grow_with_the_text(one: str, other: str) -> None:
    assert estimate(one) <= estimate(one + other) <= estimate(one) + estimate(other)
    assert estimate(one) == math.ceil(len(one.encode("utf-8", "surrogatepass")) / 4)


def test_the_models_own_count_goes_first() -> None:
    counter = TokenCounter(lambda text: len(text.split()))
    assert counter.exact
    assert counter.text("one two three") == 3
    assert counter.message(user("one two three")) == 3 + MESSAGE_OVERHEAD
    assert counter.messages([user("one two three"), assistant("four")]) == 4 + 2 * MESSAGE_OVERHEAD + REPLY_OVERHEAD


def test_a_model_that_cannot_count_leaves_it_to_the_estimate() -> None:
    for counter in (TokenCounter(), TokenCounter(lambda _: None)):
        assert not counter.exact
        assert counter.text("다람쥐를 다랑어라고") == estimate("다람쥐를 다랑어라고")


def test_what_an_exact_counter_cannot_count_is_estimated_with_a_reserve() -> None:
    counter = TokenCounter(lambda text: None if len(text) > 1_000 else len(text.encode()))
    assert counter.text("abcd") == 4
    assert counter.text("abcd" * 850) == 1_000
    assert counter.text("abc\ud800") == 3


def test_what_a_message_holds_besides_its_text_counts() -> None:
    count = TokenCounter()
    bare = count.message(user("look"))
    assert (
        count.message(user("look", parts=[Part(type="image", data={"data": "A" * 1_000_000})])) == bare + IMAGE_TOKENS
    )
    call = Part(
        type="tool_call", data={"call_id": "c1", "name": "search", "arguments": '{"query": "' + "x" * 400 + '"}'}
    )
    assert count.message(assistant("", parts=[call])) > 100
    assert count.message(assistant("so", parts=[Part(type="citation", data={"quote": "x" * 400})])) < 10


def test_the_result_of_a_tool_counts_once() -> None:
    count = TokenCounter()
    output = "x" * 4_000
    assert 1_000 < count.message(tool(output, call_id="c1")) < 1_020
    assert (
        count.message(assistant("", parts=[Part(type="tool_result", data={"call_id": "c", "output": output})])) > 1_000
    )


@given(ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT | st.integers() | st.none(), max_size=3))
def test_any_message_has_a_size(text: str, data: dict[str, object]) -> None:
    count = TokenCounter()
    assert (
        count.message(user(text, parts=[Part(type="file", data=data)])) >= count.message(user(text)) >= estimate(text)
    )
