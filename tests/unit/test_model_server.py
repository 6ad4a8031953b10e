"""The scripted model server itself: what other tests believe about it must be true of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import httpx
import pytest

from daram.testing.model_replies import remembering
from daram.testing.model_server import Reply, ScriptedModelServer, call, cut, failure, overflow, stall


def request(*texts: str, **more):
    roles = ["user" if number % 2 == 0 else "assistant" for number in range(len(texts))]
    return {"model": "m", "messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)], **more}


async def post(server: ScriptedModelServer, body: dict) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{server.base_url}/chat/completions", json=body)


def events(response: httpx.Response) -> list[dict]:
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_streams_words_and_usage():
    async with ScriptedModelServer() as server:
        server.script("one two  three\n")
        body = request("hi", stream=True, stream_options={"include_usage": True})
        response = await post(server, body)
    chunks = events(response)
    assert response.headers["content-type"] == "text/event-stream"
    text = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
    assert text == ["", "one", " two", "  three", "\n", None]
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert server.requests == [body]


async def test_without_stream_answers_json():
    async with ScriptedModelServer() as server:
        server.script(call("look", {"where": "tree"}))
        message = (await post(server, request("hi"))).json()["choices"][0]["message"]
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"where": "tree"}'}


async def test_scripts_are_used_in_order_then_the_default():
    async with ScriptedModelServer(default=lambda r: f"{len(r['messages'])} messages") as server:
        server.script("first", failure(503), Reply(text="third"))
        answers = [await post(server, request("a", "b", "c")) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 503, 200, 200]
    texts = [a.json()["choices"][0]["message"]["content"] for a in answers if a.status_code == 200]
    assert texts == ["first", "third", "3 messages"]


async def test_one_connection_serves_many_requests():
    async with ScriptedModelServer() as server, httpx.AsyncClient() as client:
        for _ in range(5):
            response = await client.post(f"{server.base_url}/chat/completions", json=request("hi", stream=True))
            assert response.status_code == 200
        assert server.connections == 1


async def test_models_key_and_unknown_path():
    async with ScriptedModelServer(api_key="right", model="big") as server, httpx.AsyncClient() as client:
        assert (await client.get(f"{server.base_url}/models")).status_code == 401
        client.headers["Authorization"] = "Bearer right"
        listed = (await client.get(f"{server.base_url}/models")).json()
        assert [model["id"] for model in listed["data"]] == ["big"]
        assert (await client.get(f"{server.base_url}/nothing")).status_code == 404


async def test_cut_breaks_the_connection_after_its_tokens():
    got = b""

    async def read(client, url):
        nonlocal got
        async with client.stream("POST", url, json=request("x", stream=True)) as response:
            async for data in response.aiter_bytes():
                got += data

    async with ScriptedModelServer() as server, httpx.AsyncClient() as client:
        server.script(cut(after=2, text="a b c d"))
        with pytest.raises(httpx.RemoteProtocolError):
            await read(client, f"{server.base_url}/chat/completions")
    assert b'" b"' in got
    assert b'" c"' not in got


async def test_stall_sends_nothing_and_notices_that_the_client_leaves():
    async with ScriptedModelServer() as server, httpx.AsyncClient() as client:
        server.script(stall())
        with pytest.raises(httpx.ReadTimeout):
            await client.post(f"{server.base_url}/chat/completions", json=request("x"), timeout=0.2)
        await server.wait_for(lambda s: s.left == 1)


async def test_context_limit():
    async with ScriptedModelServer(context_tokens=50) as server:
        assert (await post(server, request("short"))).status_code == 200
        response = await post(server, request("word " * 100))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("dialect", ["openai", "vllm", "llama.cpp", "ollama"])
def test_overflow_is_worded_as_each_server_does(dialect):
    assert "context" in overflow(dialect).body


STORY = "From now on, a squirrel is called a tuna."
STORY_KO = "이제부터 다람쥐를 다랑어라고 부를게."


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((STORY, "Understood.", "What is a squirrel called?"), "The squirrel is called tuna."),
        (("Let's call the squirrel 'Tuna' from now on.", "Ok.", "What do I call a squirrel?"), "called Tuna"),
        (("I will call squirrels tuna.", "Ok.", "What did we name the squirrel?"), "called tuna"),
        ((STORY, "Ok.", "No: a squirrel is called a cod.", "Ok.", "What is the squirrel called?"), "called cod"),
        ((STORY, "Ok.", "What is the name of the dog?"), "I do not know what the dog is called."),
        (("Hello.", "Hi.", "What is a squirrel called?"), "I do not know what the squirrel is called."),
        ((f"Notes:\n- {STORY}\nMessage: What is a squirrel called?",), "called tuna"),
        ((STORY_KO, "네.", "다람쥐를 뭐라고 부르기로 했지?"), "다람쥐의 이름은 다랑어입니다."),
        (("앞으로 다람쥐는 '다랑어'라고 하자", "네.", "다람쥐의 이름은?"), "다랑어"),
        (("안녕", "네.", "다람쥐는 뭐라고 불러?"), "다람쥐의 이름은 모르겠습니다."),
        ((f"메모:\n- {STORY_KO}\n메시지: 다람쥐는 뭐라고 부르지?",), "다랑어"),
        ((STORY_KO, "네.", "다람쥐를 뭐라고 부르지?", "모름", "다람쥐는 뭐라고 하지?"), "다랑어"),
        (("I like nuts.", "Ok.", "Tell me more."), "I remember: I like nuts."),
        (("I like nuts.",), "You said: I like nuts."),
        (("밤을 좋아해.",), "들었습니다: 밤을 좋아해."),
    ],
)
def test_remembers_what_the_request_holds_and_nothing_else(texts, expected):
    assert expected in remembering(request(*texts))


def test_another_request_does_not_leak_into_this_one():
    assert "tuna" in remembering(request(STORY, "Ok.", "What is a squirrel called?"))
    assert "tuna" not in remembering(request("Hi", "Ok.", "What is a squirrel called?"))


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ("[[say nuts and acorns]]", 200, "nuts and acorns"),
        ("[[tokens 3]]", 200, "word1 word2 word3"),
        ("[[status 503]]", 503, None),
        ("[[retry-after 7]] [[status 429]]", 429, None),
        ("[[overflow]]", 400, None),
        ("[[nonsense]]", 200, "There is no magic word 'nonsense'."),
        ("[[say old]]\nMessage: new", 200, "You said: new"),  # only the last line counts
    ],
)
async def test_magic_words(words, status, text):
    async with ScriptedModelServer() as server:
        response = await post(server, request(words))
    assert response.status_code == status
    if text is not None:
        assert response.json()["choices"][0]["message"]["content"] == text
    if "retry-after" in words:
        assert response.headers["retry-after"] == "7"


def test_runs_as_a_process_of_its_own():
    command = [sys.executable, "-m", "daram.testing.model_server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            url = process.stdout.readline().strip()
            answer = httpx.post(f"{url}/chat/completions", json=request(STORY, "Ok.", "What is a squirrel called?"))
            assert answer.json()["choices"][0]["message"]["content"] == "The squirrel is called tuna."
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
