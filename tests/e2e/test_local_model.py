"""The real local model: llama.cpp and the weights that ``daram model get`` fetched (``make e2e``)."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from daram import errors
from daram.context.assemble import with_notes
from daram.llm import weights
from daram.llm.base import Options
from daram.llm.local import LocalModel, problem
from daram.model import assistant, system, user
from daram.settings import Settings

pytestmark = pytest.mark.e2e

GREEDY = Options(temperature=0, max_tokens=60)
PROMPT = (
    "You are a helpful assistant. Answer in the language of the user's message.\n\n"
    "Each user message may come with notes: things the same user said before. Answer the message from the notes if "
    "they contain the answer, even if they contradict common knowledge. Do not repeat the notes."
)


@pytest.fixture(scope="module")
def weights_file(outside_environment) -> Path:
    missing = problem()
    if missing is not None:
        pytest.fail(missing)
    settings = Settings.from_env(outside_environment)
    path = settings.local_model or weights.find(settings.data)
    if path is None:
        pytest.fail(f"there are no weights in {settings.data}/models: run daram model get (make e2e does)")
    return path


@pytest.fixture(scope="module")
def model(weights_file):
    """Loaded once for all tests of this file; each has an event loop of its own."""
    model = LocalModel(weights_file)
    yield model
    asyncio.run(model.close())


async def answer(model, *messages, options=GREEDY) -> str:
    return "".join([delta.text async for delta in model.stream(messages, options)])


def seconds_used(model) -> float:
    """Processor time of the runtime so far."""
    fields = Path(f"/proc/{model._process._process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_loads_beside_a_running_event_loop(model):
    said, turns = [], 0
    while (line := await model.ready()) is not None:
        said.append(line)
        turns += 1
        await asyncio.sleep(0.01)
    assert all("is being loaded" in line for line in said)
    assert turns > 20  # loading takes seconds, and must not stop the loop


@pytest.mark.parametrize(
    ("statement", "question", "name"),
    [
        ("From now on, a squirrel is called a tuna.", "What is a squirrel called?", "tuna"),
        ("Let's call squirrels tunas from now on.", "What is the squirrel called?", "tuna"),
        ("My dog is called Biscuit.", "What is my dog called?", "biscuit"),
        ("이제부터 다람쥐를 다랑어라고 부를게.", "다람쥐를 뭐라고 부르기로 했지?", "다랑어"),
        ("내 강아지 이름은 초코야.", "내 강아지 이름이 뭐야?", "초코"),
    ],
)
async def test_remembers_with_notes(model, statement, question, name):
    acknowledged = await answer(model, system(PROMPT), user(statement))
    noted = with_notes(user(question), [user(statement)])
    assert name in (await answer(model, system(PROMPT), noted)).lower()
    said = await answer(model, system(PROMPT), user(statement), assistant(acknowledged), noted)
    assert name in said.lower()


async def test_streams_token_by_token_with_usage(model):
    deltas = [delta async for delta in model.stream([user("Count from one to ten in words.")], GREEDY)]
    assert len([delta for delta in deltas if delta.text]) > 5
    assert deltas[-1].finish in ("stop", "length")
    assert deltas[-1].usage["output_tokens"] >= len(deltas) - 2
    assert deltas[-1].model == model.name


async def test_counts_as_the_model_does(model):
    short, long = "Hi", "Hi" + " 다람쥐를 다랑어라고 부르자, said the tuna." * 5
    used = []
    for text in (short, long):
        deltas = [d async for d in model.stream([user(text)], Options(max_tokens=1, temperature=0))]
        used.append(deltas[-1].usage["input_tokens"])
    assert used[1] - used[0] == model.count_tokens(long) - model.count_tokens(short)


async def test_a_context_that_is_too_long_is_typed(model):
    await model.ready()
    with pytest.raises(errors.ContextOverflow, match="exceeds the available context"):
        await answer(model, user("word " * (model.context_tokens + 500)))


@pytest.mark.skipif(sys.platform != "linux", reason="measures the runtime through /proc")
async def test_leaving_stops_the_generation(model):
    stream = model.stream([user("Write the longest story that you can.")], Options(temperature=0))
    async with aclosing(stream):
        await anext(stream)
    for _ in range(60):  # a story that goes on takes longer than that
        before = seconds_used(model)
        await asyncio.sleep(1)
        if seconds_used(model) - before < 0.2:
            break
    else:
        pytest.fail("the runtime still generates, though nobody listens")
    assert await answer(model, user("Say hello."))


async def test_several_at_once(model):
    words = ["apple", "bridge", "candle", "desert"]
    said = await asyncio.gather(*(answer(model, user(f"Repeat this one word: {word}")) for word in words))
    assert [word in text.lower() for word, text in zip(words, said, strict=True)] == [True] * 4


async def test_nothing_but_a_sign_of_life_without_the_key(model):
    runtime = await model._runtime()
    address = runtime.tokenizer._address
    host, _, port = address.partition(":")
    assert host == "127.0.0.1"
    asked = {
        ("GET", "/health"): 200, ("GET", "/"): 404, ("GET", "/index.html"): 404, ("GET", "/v1/models"): 401,
        ("GET", "/props"): 401, ("GET", "/slots"): 401, ("GET", "/metrics"): 401, ("POST", "/tokenize"): 401,
        ("POST", "/completion"): 401, ("POST", "/v1/chat/completions"): 401, ("POST", "/v1/responses"): 401,
    }  # fmt: skip
    got = {}
    for method, path in asked:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            connection.request(method, path, "{}" if method == "POST" else None, headers)
            got[method, path] = connection.getresponse().status
            connection.close()
            assert got[method, path] == asked[method, path]


async def test_a_crash_is_an_error_and_the_next_answer_works(model):
    async def crash():
        async for _ in model.stream([user("Write the longest story that you can.")], Options(temperature=0)):
            os.kill(model._process._process.pid, signal.SIGKILL)

    with pytest.raises(errors.ModelBroken, match="SIGKILL"):
        await crash()
    assert await answer(model, user("Say hello."))


async def test_a_file_that_was_cut_short_is_named(weights_file, tmp_path):
    damaged = tmp_path / "damaged.gguf"
    with weights_file.open("rb") as whole:
        damaged.write_bytes(whole.read(50 << 20))
    model = LocalModel(damaged)
    try:
        with pytest.raises(errors.ModelUnavailable, match=r"damaged\.gguf.*cut short"):
            await answer(model, user("Hello"))
    finally:
        await model.close()
