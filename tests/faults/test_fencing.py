"""Answers whose maker is stopped, killed, or pushed aside: real processes on one SQLite file.

A maker streams words without end and tells each of its deltas on its standard output; a word that was told may be lost
only if it came after the last checkpoint.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.checks import check_file
from tests.faults.children import start

from daram import errors
from daram.chat import Chatbot
from daram.model import Message
from daram.store.sqlite.engine import SqliteStore

OWNER = "owner"

MAKER = """
from daram.chat import Chatbot
from daram.llm.base import Delta, Options
from daram.store.wrapper import StoreWrapper

class Words:
    name, context_tokens, prefers_notes = "words", 4096, False
    async def stream(self, messages, options=Options()):
        for number in range(1_000_000):
            yield Delta(text=f"{number} ")
            await asyncio.sleep(0.002)
    def count_tokens(self, text):
        return None
    async def ready(self):
        return None
    async def close(self):
        pass

class Telling(StoreWrapper):
    done = 0
    async def checkpoint(self, *args, **kwargs):
        result = await super().checkpoint(*args, **kwargs)
        print("checkpoint", len(args[4]), flush=True)
        self.done += 1
        if self.done == int(sys.argv[4]):
            # Here and not from outside: whoever is stopped within a transaction keeps the whole file locked.
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGSTOP)
        return result

async def main():
    lease, every = float(sys.argv[2]), float(sys.argv[3])
    store = SqliteStore(path)
    async with Chatbot(Telling(store), Words(), titles=False, lease=lease, checkpoint_every=every) as bot:
        running = await bot.start("owner", "c", "count")
        print("answer", running.answer_id, flush=True)
        async for event in running.events():
            if event.type == "delta":
                print("delta", len(event.text), flush=True)
            elif event.type != "created":
                m = event.message
                print("end", event.type, event.code, m and m.status, m and len(m.text), flush=True)
        try:
            print("result", (await running.message()).status, flush=True)
        except daram.DaramError as error:
            print("result", error.code, flush=True)
    await store.close()

asyncio.run(main())
"""


class Model:
    """Answers with one word."""

    name = "word"
    context_tokens = 4096
    prefers_notes = False

    async def stream(self, messages: object, options: object = None) -> AsyncIterator[object]:
        from daram.llm.base import Delta

        yield Delta(text="word", finish="stop")

    def count_tokens(self, text: str) -> int | None:
        return None

    async def ready(self) -> str | None:
        return None

    async def close(self) -> None:
        """Nothing to let go of."""


@contextmanager
def maker(path: Path, lease: float, *, stop_after: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A process that makes an answer without end; it stops itself after so many checkpoints (0: never).

    Killed when the test is over.
    """
    with start(MAKER, path, str(lease), "0.05", str(stop_after)) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], enough: Callable[[list[list[str]]], bool]) -> list[list[str]]:
    """The lines that it prints, split, until ``enough`` (or its end)."""
    lines: list[list[str]] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.split())
        if enough(lines):
            return lines
    return lines


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def of(lines: list[list[str]], kind: str) -> list[list[str]]:
    return [line[1:] for line in lines if line[0] == kind]


def checkpoints(count: int) -> Callable[[list[list[str]]], bool]:
    return lambda lines: len(of(lines, "checkpoint")) >= count


async def stored(path: Path) -> list[Message]:
    async with SqliteStore(path) as store:
        return await store.tail(OWNER, "c", 10)


async def closed_by_another(path: Path) -> Message:
    """Recover as another process does, as soon as the lease has run out."""
    async with SqliteStore(path) as store, Chatbot(store, Model(), titles=False) as bot:
        while True:
            if found := await bot.recover():
                return found[0]
            await asyncio.sleep(0.05)


def counting(text: str) -> bool:
    """Whether the text is the words in order, none missing, none twice."""
    return "".join(f"{number} " for number in range(text.count(" "))) == text


async def test_a_process_that_was_paused_past_its_lease_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    with maker(path, lease=1.0, stop_after=3) as process:
        lines = read_until(process, checkpoints(3))
        wait_until_stopped(process)
        message = await closed_by_another(path)
        assert (message.status, counting(message.text)) == ("incomplete", True)
        assert len(message.text) >= int(of(lines, "checkpoint")[-1][0])
        before = await stored(path)
        process.send_signal(signal.SIGCONT)
        rest = read_until(process, lambda lines: lines[-1][0] == "result")
        # It found out, stopped, and told its client what was kept.
        assert of(rest, "end") == [["incomplete", "lease_lost", "incomplete", str(len(message.text))]]
        assert of(rest, "result") == [["incomplete"]]
        assert process.wait() == 0
    after = await stored(path)
    assert after == before
    assert [m.text for m in after] == ["count", message.text]
    check_file(path)


async def test_a_process_that_was_paused_while_the_next_turn_was_answered(tmp_path: Path) -> None:
    """The next turn closes the answer, and is answered itself; then the paused one goes on."""
    path = tmp_path / "daram.db"
    with maker(path, lease=1.0, stop_after=1) as process:
        wait_until_stopped(process)
        async with SqliteStore(path) as store, Chatbot(store, Model(), titles=False, wait=100.0) as bot:
            answer = await bot.ask(OWNER, "c", "and then?")
        process.send_signal(signal.SIGCONT)
        rest = read_until(process, lambda lines: lines[-1][0] == "result")
        assert of(rest, "end")[0][0] == "incomplete"
    tail = await stored(path)
    assert [m.role for m in tail] == ["user", "assistant", "user", "assistant"]
    assert [m.status for m in tail] == ["complete", "incomplete", "complete", "complete"]
    assert tail[-1] == answer
    check_file(path)


async def test_a_pause_that_is_shorter_than_the_lease_is_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    with maker(path, lease=1000.0, stop_after=1) as process:
        read_until(process, checkpoints(1))
        wait_until_stopped(process)
        async with SqliteStore(path) as store, Chatbot(store, Model(), titles=False) as bot:
            assert await bot.recover() == []
            with pytest.raises(errors.ConversationBusy):
                await bot.start(OWNER, "c", "and then?", wait=0)
            process.send_signal(signal.SIGCONT)
            read_until(process, checkpoints(1))
            assert await bot.cancel(OWNER, "c") == 1  # the flag, across processes
        rest = read_until(process, lambda lines: lines[-1][0] == "result")
        assert of(rest, "end")[0][0] == "cancelled"
    _, answer = await stored(path)
    assert (answer.status, counting(answer.text)) == ("cancelled", True)


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_killed_process_loses_at_most_what_came_after_the_last_checkpoint(tmp_path: Path, after: int) -> None:
    path = tmp_path / "daram.db"
    with maker(path, lease=1000.0) as process:
        lines = read_until(process, lambda lines: checkpoints(after)(lines) and len(of(lines, "delta")) > 1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        told = read_until(process, lambda lines: False)
    ((answer_id,),) = of(lines, "answer")
    # The lease has long to go, but its holder is dead: closed at once.
    async with SqliteStore(path) as store, Chatbot(store, Model(), titles=False) as bot:
        (message,) = await bot.recover()
        (event,) = [event async for event in bot.resume(OWNER, "c", answer_id, after=7)]
        assert (event.seq, event.type, event.message) == (8, "incomplete", message)
        question, answer = await store.tail(OWNER, "c")
        assert (question.text, answer) == ("count", message)
        assert (answer.id, answer.status, counting(answer.text)) == (answer_id, "incomplete", True)
        kept = [int(size) for (size,) in of(lines + told, "checkpoint")]
        assert len(answer.text) >= max(kept, default=0)
        # The same turn again: a whole answer beside the broken one.
        again = await bot.ask(OWNER, "c", question)
        assert (again.text, again.parent) == ("word", question.id)
    check_file(path)


async def test_the_next_turn_closes_a_dead_answer_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    with maker(path, lease=1000.0) as process:
        read_until(process, checkpoints(1))
        process.send_signal(signal.SIGKILL)
        process.wait()
    async with SqliteStore(path) as store, Chatbot(store, Model(), titles=False) as bot:
        await bot.ask(OWNER, "c", "and then?", wait=0)
        tail = await store.tail(OWNER, "c")
    assert [m.status for m in tail] == ["complete", "incomplete", "complete", "complete"]
