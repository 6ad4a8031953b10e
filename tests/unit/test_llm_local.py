"""The local model around its runtime: loading, turns, crashes, closing. The runtime is a stand-in process here, a
scripted server that keeps the same agreement; with llama.cpp and weights it is tried in tests/e2e."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from daram import errors
from daram.llm import _llama_process, local
from daram.llm.base import ChatModel, Options
from daram.llm.local import LocalModel
from daram.model import user

STAND_IN = """
import json, os, sys
config = json.loads(sys.stdin.buffer.readline())
sys.path[:] = config["path"]
mode = open(config["model"]).read().split()[1]
if mode == "slow":
    sys.stdin.buffer.read()  # never loaded; ends with its parent
if mode == "dies":
    print("no room for the tensors", file=sys.stderr, flush=True)
    os.kill(os.getpid(), int(os.environ.get("STAND_IN_SIGNAL", "9")))
if mode == "gomp":
    print(json.dumps({"error": "import", "text": "libgomp.so.1: cannot open shared object file"}), flush=True)
    sys.exit()
if mode == "damaged":
    print("tensor data is not within the file", file=sys.stderr, flush=True)
    print(json.dumps({"error": "load", "text": "Failed to init server"}), flush=True)
    sys.exit()
if mode == "mute":
    sys.exit(7)
import asyncio, threading
from daram.testing.model_server import ScriptedModelServer

async def main():
    async with ScriptedModelServer(model=config["name"], api_key=config["key"]) as server:
        print(json.dumps({"url": server.base_url.removesuffix("/v1"), "context_tokens": 2000}), flush=True)
        await asyncio.Event().wait()

threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
asyncio.run(main())
"""


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    """Makes a file that the stand-in takes for a model, which then behaves as asked."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(_llama_process, "_SCRIPT", script)
    monkeypatch.setattr(local, "problem", lambda: None)

    def make(mode: str = "serves") -> Path:
        path = tmp_path / f"{mode}.gguf"
        path.write_text(f"GGUF {mode}")
        return path

    return make


@asynccontextmanager
async def opened(path, **options):
    model = LocalModel(path, **options)
    try:
        yield model
    finally:
        await model.close()


async def ask(model, text, **options) -> str:
    return "".join([delta.text async for delta in model.stream([user(text)], Options(**options))])


def child(model) -> int:
    return model._process._process.pid


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_keeps_the_protocol(tmp_path):
    model = LocalModel(tmp_path / "some-model.gguf")
    assert isinstance(model, ChatModel)
    assert (model.name, model.prefers_notes) == ("some-model", True)


async def test_loads_by_itself_and_answers(gguf):
    async with opened(gguf(), name="mine") as model:
        assert await ask(model, "Hello") == "You said: Hello"
        assert await model.ready() is None
        assert model.context_tokens == 2000  # what it was trained for is less than was asked
        deltas = [delta async for delta in model.stream([user("[[tokens 3]]")])]
    assert [delta.model for delta in deltas] == ["mine"] * 4
    assert deltas[-1].usage["output_tokens"] == 3


async def test_says_how_far_it_is_and_closes_in_the_middle_of_loading(gguf):
    async with opened(gguf("slow"), name="mine") as model:
        assert "mine is being loaded" in await model.ready()
        answering = asyncio.create_task(ask(model, "Hello"))
        while model._process is None:
            await asyncio.sleep(0.01)
        pid = child(model)
        await model.close()
        with pytest.raises(errors.ModelUnavailable, match="closed"):
            await answering
        assert not is_running(pid)
        assert "closed" in await model.ready()
        await model.close()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("damaged", "tensor data is not within the file"),
        ("dies", "SIGKILL .for want of memory.*no room for the tensors"),
        ("gomp", "apt install libgomp1"),
        ("mute", r"its process ended \(7\)"),
    ],
)
async def test_what_cannot_be_loaded_says_why(gguf, mode, words):
    async with opened(gguf(mode)) as model:
        with pytest.raises(errors.ModelUnavailable, match=words):
            await ask(model, "Hello")
        assert mode == "gomp" or model.name in await model.ready()


async def test_a_missing_instruction_is_named(gguf, monkeypatch):
    monkeypatch.setenv("STAND_IN_SIGNAL", str(int(signal.SIGILL)))
    async with opened(gguf("dies")) as model:
        with pytest.raises(errors.ModelUnavailable, match="the processor lacks"):
            await ask(model, "Hello")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"", "not a GGUF"), (b"<html>", "not a GGUF"), ("folder", "is a directory")],
)
async def test_a_file_that_is_no_model_is_refused_before_anything_starts(gguf, tmp_path, content, words):
    path = tmp_path / "model.gguf"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    async with opened(path) as model:
        with pytest.raises(errors.ModelUnavailable, match=words) as caught:
            await ask(model, "Hello")
        assert "DARAM_LOCAL_MODEL" in str(caught.value)
        assert model._process is None


async def test_a_file_that_was_put_right_is_loaded_with_the_next_question(gguf, tmp_path):
    path = tmp_path / "late.gguf"
    async with opened(path) as model:
        with pytest.raises(errors.ModelUnavailable):
            await ask(model, "Hello")
        assert "cannot be read" in await model.ready()
        gguf().rename(path)
        assert await ask(model, "Hello") == "You said: Hello"


async def test_a_crash_fails_the_answer_and_the_next_one_works(gguf):
    async def crash(model):
        async for _ in model.stream([user("[[tokens 1000]] [[delay 0.01]]")]):
            os.kill(child(model), signal.SIGSEGV)

    async with opened(gguf()) as model:
        with pytest.raises(errors.ModelBroken, match="SIGSEGV"):
            await crash(model)
        assert await ask(model, "Again") == "You said: Again"


async def test_closing_in_the_middle_of_an_answer(gguf):
    async def close(model):
        async for _ in model.stream([user("[[tokens 1000]] [[delay 0.01]]")]):
            await model.close()

    model = LocalModel(gguf())
    with pytest.raises(errors.ModelBroken, match="closed in the middle"):
        await close(model)
    assert not is_running(child(model))


async def test_a_context_that_is_too_long(gguf):
    async with opened(gguf()) as model:
        with pytest.raises(errors.ContextOverflow):
            await ask(model, "[[overflow]]")


async def test_answers_take_turns_and_too_many_are_refused(gguf):
    async with opened(gguf(), slots=1, queue=2) as model:
        first = model.stream([user("[[tokens 1000]] [[delay 0.01]]")])
        async with aclosing(first):
            await anext(first)
            waiting = [asyncio.create_task(ask(model, f"number {number}")) for number in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(errors.ModelRateLimited) as caught:
                await ask(model, "one too many")
            assert caught.value.retry_after > 0
            assert not any(task.done() for task in waiting)
        assert await asyncio.gather(*waiting) == ["You said: number 0", "You said: number 1"]
        assert await ask(model, "there is room again") == "You said: there is room again"


async def test_whoever_stops_waiting_gives_up_the_place(gguf):
    async with opened(gguf(), slots=1, queue=1) as model:
        first = model.stream([user("[[tokens 1000]] [[delay 0.01]]")])
        async with aclosing(first):
            await anext(first)
            waiting = asyncio.create_task(ask(model, "never mind"))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            next_one = asyncio.create_task(ask(model, "me"))
            await asyncio.sleep(0)
        assert await next_one == "You said: me"


async def test_options_reach_the_runtime(gguf):
    async with opened(gguf()) as model:
        runtime = await model._runtime()
        sent = []
        original = runtime.endpoint._attempt
        runtime.endpoint._attempt = lambda request, chunks: (sent.append(request), original(request, chunks))[1]
        await ask(model, "Hello")
        await ask(model, "Hello", temperature=0, max_tokens=5, extra={"seed": 1})
    assert sent[0]["temperature"] == 0.2
    assert (sent[1]["temperature"], sent[1]["max_tokens"], sent[1]["seed"]) == (0, 5, 1)


async def test_tokens_are_unknown_until_loaded_and_where_the_runtime_does_not_say(gguf):
    async with opened(gguf()) as model:
        assert model.count_tokens("Hello") is None
        await ask(model, "Hello")
        assert model.count_tokens("Hello") is None  # the stand-in has no tokenizer
        assert model.count_tokens("x" * 100_000) is None


def test_serves_one_event_loop_after_another(gguf):
    model = LocalModel(gguf())
    assert asyncio.run(ask(model, "one")) == "You said: one"
    pid = child(model)
    assert asyncio.run(ask(model, "two")) == "You said: two"
    assert child(model) == pid
    asyncio.run(model.close())


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for the child")
@pytest.mark.parametrize("end", ["sys.exit(3)", "os._exit(3)", "os.kill(os.getpid(), 9)", "raise ValueError"])
def test_the_runtime_ends_with_its_parent_however_that_ends(gguf, tmp_path, end):
    script = textwrap.dedent(f"""
        import asyncio, os, sys
        from pathlib import Path
        from daram.llm import _llama_process, local
        from daram.model import user
        _llama_process._SCRIPT = Path({str(tmp_path / "stand_in.py")!r})
        local.problem = lambda: None
        async def main():
            model = local.LocalModel({str(gguf())!r})
            async for _ in model.stream([user("[[tokens 1000]] [[delay 0.01]]")]):
                print(model._process._process.pid, flush=True)
                {end}
        asyncio.run(main())
    """)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode in {3, -9, 1}
    pid = int(done.stdout.split()[0])
    while is_running(pid):  # the test's own time-out ends this if it never does
        time.sleep(0.05)
    assert "ResourceWarning" not in done.stderr


def test_the_key_is_not_to_be_seen_from_outside(gguf):
    process = _llama_process.LlamaProcess(gguf(), name="x", context_tokens=100, slots=1, threads=1)
    try:
        loaded = process.load()
        assert len(loaded.key) > 40
        pid = process._process.pid
        if sys.platform == "linux":
            for name in ("cmdline", "environ"):
                assert loaded.key.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    finally:
        process.kill()


def test_what_is_missing_on_this_machine_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(_llama_process.importlib.util, "find_spec", lambda _: None)
    assert 'pip install "daram[local]"' in _llama_process.problem()
    monkeypatch.setattr(_llama_process.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(_llama_process.sys, "platform", "linux")
    monkeypatch.setattr(_llama_process, "_has_avx2", lambda: False)
    monkeypatch.setattr(_llama_process.platform, "machine", lambda: "x86_64")
    assert "AVX2" in _llama_process.problem()

    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(_llama_process, "_has_avx2", lambda: True)
    monkeypatch.setattr(_llama_process.ctypes, "CDLL", absent)
    assert "libgomp" in _llama_process.problem()
    monkeypatch.setattr(_llama_process.ctypes, "CDLL", lambda _: None)
    assert _llama_process.problem() is None
