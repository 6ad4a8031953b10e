"""`daram chat`, as a process: in a pipe, on a terminal, stopped by Ctrl-C, killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daram.testing.model_server import Reply, ScriptedModelServer, failure

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals are POSIX's here")

PATIENCE = 120.0  # seconds that a step may take on a busy machine
SLOWLY = Reply(tokens=tuple(f"word{n} " for n in range(1000)), delay=0.02)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedModelServer]:
    async with ScriptedModelServer() as server:
        yield server


@pytest.fixture
def environ(server: ScriptedModelServer, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DARAM_DATA": str(tmp_path),
        "DARAM_MODEL": "openai:scripted",
        "DARAM_TITLES": "off",
        "OPENAI_BASE_URL": server.base_url,
        "TERM": "dumb",
    }


Daram = Callable[..., Any]


@pytest.fixture
def daram_(environ: dict[str, str]) -> Daram:
    """Runs ``daram …`` to its end beside the server: (stdout, stderr, exit code)."""

    async def run(*arguments: str, given: str | bytes = "") -> tuple[str, str, int]:
        process = await start(environ, *arguments)
        told = given if isinstance(given, bytes) else given.encode()
        out, err = await asyncio.wait_for(process.communicate(told), PATIENCE)
        assert process.returncode is not None
        return out.decode(), err.decode(), process.returncode

    return run


async def start(environ: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daram", *arguments, env=environ, stdin=pipe, stdout=pipe, stderr=pipe
    )


async def messages(daram_: Daram, name: str) -> list[tuple[str, str, str]]:
    """What is stored: (role, status, text)."""
    out, _, code = await daram_("show", name, "--json")
    assert code == 0
    return [(m["role"], m.get("status", "complete"), m["text"]) for m in json.loads(out)["messages"]]


# --- in a pipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "asked", "answered"),
    [
        ("From now on call the squirrel tuna.", "What is the name of the squirrel?", "The squirrel is called tuna."),
        ("앞으로 다람쥐를 다랑어라고 부를게.", "다람쥐의 이름은 뭐야?", "다람쥐의 이름은 다랑어입니다."),
    ],
)
async def test_a_new_process_remembers_what_an_earlier_one_was_told(
    daram_: Daram, told: str, asked: str, answered: str
) -> None:
    out, err, code = await daram_("chat", "--conversation", "The story", given=f"{told}\n")
    assert (err, code) == ("", 0)
    assert told in out
    assert await daram_("chat", "--conversation", "The story", given=f"{asked}\n") == (f"{answered}\n", "", 0)
    assert len((await daram_("list"))[0].splitlines()) == 1


async def test_one_line_in_one_answer_out(daram_: Daram, server: ScriptedModelServer) -> None:
    server.script("One.", "Two.\n", "Three.")
    out, err, code = await daram_("chat", given="first\n\n  \nsecond\r\nthird, without an end of line")
    assert (out, err, code) == ("One.\nTwo.\nThree.\n", "", 0)
    asked = [request["messages"][-1]["content"] for request in server.requests]
    assert asked == ["first", "second", "third, without an end of line"]


async def test_without_a_name_each_process_begins_a_conversation(daram_: Daram) -> None:
    for _ in range(2):
        await daram_("chat", given="hello\n")
    assert len((await daram_("list"))[0].splitlines()) == 2


async def test_commands_work_in_a_pipe_too(daram_: Daram) -> None:
    given = "/new Apples\nI like apples\n/new Pears\nI like pears\n/list\n/open 2\nAnd?\n/help\n/quit\nnever read\n"
    out, err, code = await daram_("chat", given=given)
    assert (err, code) == ("", 0)
    assert out.splitlines()[2].startswith("  1* ")
    assert out.splitlines()[2].endswith("  Pears")
    assert out.splitlines()[3].startswith("  2  ")
    assert out.splitlines()[4] == "I remember: I like apples"
    assert "/retry" in out
    assert [text for _, _, text in await messages(daram_, "Apples")][2] == "And?"


async def test_a_message_may_begin_with_a_slash(daram_: Daram, server: ScriptedModelServer) -> None:
    await daram_("chat", given="//list is a command\n/etc/hosts is none\n")
    asked = [request["messages"][-1]["content"] for request in server.requests]
    assert asked == ["/list is a command", "/etc/hosts is none"]


async def test_an_error_is_said_the_rest_goes_on_and_a_retry_stores_nothing_twice(
    daram_: Daram, server: ScriptedModelServer
) -> None:
    server.script(failure(401), "Now I can.", "Bye.")
    out, err, code = await daram_("chat", "--conversation", "c", given="hello\n/retry\n/nonsense\nbye\n")
    assert out == "\nNow I can.\nBye.\n"
    assert code == 1
    refused, unknown = err.splitlines()
    assert refused.startswith("daram: ")
    assert "401" in refused
    assert "/nonsense" in unknown
    stored = await messages(daram_, "c")
    assert stored == [
        ("user", "complete", "hello"),
        ("assistant", "complete", "Now I can."),
        ("user", "complete", "bye"),
        ("assistant", "complete", "Bye."),
    ]


async def test_what_is_no_text_is_refused_and_not_stored(daram_: Daram) -> None:
    out, err, code = await daram_("chat", "--conversation", "c", given=b"caf\xe9\nhello\n")
    assert (out, code) == ("You said: hello\n", 1)
    assert err.startswith("daram: ")
    assert [text for _, _, text in await messages(daram_, "c")] == ["hello", "You said: hello"]


async def test_an_id_that_is_not_there_is_not_taken_for_a_title(daram_: Daram) -> None:
    out, err, code = await daram_("chat", "--conversation", "conv_0", given="hello\n")
    assert (out, err, code) == ("", "daram: no conversation 'conv_0' for this owner\n", 1)
    assert (await daram_("list"))[0] == ""


async def test_without_a_model_it_says_what_to_do_and_keeps_the_message(daram_: Daram, environ: dict[str, str]) -> None:
    environ["DARAM_MODEL"] = "local"
    out, err, code = await daram_("chat", "--conversation", "c", given="안녕\n")
    assert (out, code) == ("\n", 1)
    assert "daram model get" in err
    assert (await messages(daram_, "c"))[0] == ("user", "complete", "안녕")


async def test_ctrl_c_in_a_pipe_keeps_what_was_said(
    daram_: Daram, environ: dict[str, str], server: ScriptedModelServer
) -> None:
    server.script(SLOWLY)
    process = await start(environ, "chat", "--conversation", "c")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"tell me\n")
    await process.stdin.drain()
    await asyncio.wait_for(process.stdout.readuntil(b"word5"), PATIENCE)
    process.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 130
    assert b"word999" not in out
    assert out.endswith(b"\n")
    (question, answer) = await messages(daram_, "c")
    assert question == ("user", "complete", "tell me")
    assert answer[1] == "cancelled"
    assert answer[2].startswith("word0 word1 word2 word3 word4 word5")


async def test_what_a_killed_process_had_said_is_there_and_incomplete(
    daram_: Daram, environ: dict[str, str], server: ScriptedModelServer
) -> None:
    server.script(SLOWLY)
    process = await start(environ, "chat", "--conversation", "c")
    assert process.stdin is not None
    process.stdin.write(b"tell me\n")
    await process.stdin.drain()
    deadline = time.monotonic() + PATIENCE
    while "word9 " not in (shown := (await daram_("show", "c"))[0]):
        assert time.monotonic() < deadline, shown
    assert "assistant (being made)" in shown
    process.kill()
    await process.communicate()
    (question, answer) = await messages(daram_, "c")
    assert question == ("user", "complete", "tell me")
    assert answer[1] == "incomplete"
    assert answer[2].startswith("word0 word1 word2 word3 word4 word5 word6 word7 word8 word9")
    assert "assistant (incomplete)" in (await daram_("show", "c"))[0]


# --- on a terminal --------------------------------------------------------------------------------------------------


class Screen:
    """A terminal with a program on it."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._seen = ""

    def type(self, line: str) -> None:
        os.write(self._master, f"{line}\n".encode())

    async def until(self, text: str) -> str:
        """Wait until the text is on the screen; returns all up to its end, which is then forgotten."""
        deadline = time.monotonic() + PATIENCE
        while text not in self._seen:
            assert time.monotonic() < deadline, f"{text!r} did not come; there is {self._seen!r}"
            self._seen += (await asyncio.to_thread(os.read, self._master, 65536)).decode("utf-8", "replace")
        before, _, self._seen = self._seen.partition(text)
        return before + text

    async def interrupt(self, until: str | None = None) -> str:
        """Press Ctrl-C until the text is there, or the program has ended.

        Once is not enough: readline does not notice a signal that comes between its prompt and its waiting for a key.
        """
        happened = asyncio.create_task(self.until(until) if until else asyncio.to_thread(self.process.wait, PATIENCE))
        while not happened.done():
            self.process.send_signal(signal.SIGINT)
            await asyncio.wait({happened}, timeout=2)
        return str(happened.result())

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE)


@contextmanager
def terminal(environ: dict[str, str], *arguments: str) -> Iterator[Screen]:
    import pty

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "daram", "chat", *arguments]
    with subprocess.Popen(command, env=environ, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        try:
            yield Screen(process, master)
        finally:
            process.kill()
            os.close(master)


async def test_a_sitting_at_the_terminal(environ: dict[str, str], server: ScriptedModelServer) -> None:
    server.script("Hello \x1b[2Jthere.", SLOWLY, "We were interrupted.")
    with terminal(environ, "--conversation", "다람") as screen:
        assert "Model: scripted" in await screen.until("you> ")
        screen.type("안녕")
        assert "daram> Hello �[2Jthere." in await screen.until("you> ")

        screen.type("tell me")
        await screen.until("word5")
        screen.process.send_signal(signal.SIGINT)
        stopped = await screen.until("you> ")
        assert "[stopped; what was said is kept]" in stopped
        assert "word999" not in stopped

        screen.type("what was that?")
        assert "daram> We were interrupted." in await screen.until("you> ")
        screen.type("/list")
        assert "  1* " in await screen.until("다람")
        await screen.until("you> ")
        screen.type("/open 1")
        assert "you> 안녕" in await screen.until("daram (cancelled)> word0 word1")
        screen.type("/quit")
        assert await screen.ended() == 0


async def test_ctrl_c_twice_at_the_prompt_leaves(environ: dict[str, str]) -> None:
    with terminal(environ) as screen:
        await screen.until("you> ")
        await screen.interrupt("(Ctrl-C again")
        await screen.until("you> ")
        await screen.interrupt()
        assert await screen.ended() == 0


async def test_a_second_ctrl_c_leaves_in_the_middle_of_an_answer(
    daram_: Daram, environ: dict[str, str], server: ScriptedModelServer
) -> None:
    server.script(Reply(text="one two three", delay=0.01, end="stall"))
    with terminal(environ, "--conversation", "c") as screen:
        await screen.until("you> ")
        screen.type("tell me")
        await screen.until("three")
        screen.process.send_signal(signal.SIGINT)
        await screen.interrupt()
        assert await screen.ended() in (0, 130)  # the first may have been quicker: then the second is at the prompt
    assert [(role, text) for role, _, text in await messages(daram_, "c")] == [
        ("user", "tell me"),
        ("assistant", "one two three"),
    ]


BROKEN_MODEL = """
import sys
import daram.config
from daram.llm.absent import NoModel

class Broken(NoModel):
    async def stream(self, messages, options=None):
        raise KeyError("choices")
        yield

daram.config.make_model = lambda settings: Broken("broken")
from daram.cli import main
main()
"""


@pytest.mark.parametrize("debug", ["", "1"])
async def test_a_plug_in_that_fails_is_a_line_and_not_a_traceback(environ: dict[str, str], debug: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BROKEN_MODEL, "chat"),
        env=environ | {"DARAM_DEBUG": debug},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(b"hello\n"), PATIENCE)
    lines = err.decode().splitlines()
    assert (process.returncode, out.strip()) == (1, b"")
    assert lines[-1] == "daram: the model's plug-in failed: KeyError: 'choices'"
    assert ("Traceback" in err.decode()) is bool(debug)
    if not debug:
        assert len(lines) == 2
        assert all(line.startswith("daram: the model's plug-in failed") for line in lines)


# --- answered from documents ----------------------------------------------------------------------------------------


async def test_a_conversation_is_answered_from_documents_with_notes(
    daram_: Daram, server: ScriptedModelServer, tmp_path: Path
) -> None:
    file = tmp_path / "leave.md"
    file.write_text("# Leave\n\nEmployees earn two days of paid leave for each month worked.\n")
    assert (await daram_("docs", "add", str(file), "--official", "--title-no", "7", "--title", "Handbook"))[2] == 0
    server.script("Two days a month [1].")
    asked = "How many days of paid leave do employees earn?\n"
    out, err, code = await daram_("chat", "--docs", "Handbook", "--conversation", "work", given=asked)
    assert (out, err, code) == ("Two days a month [1].\n", "[1] leave.md, Leave\n", 0)
    assert "two days of paid leave" in json.dumps(server.requests[-1]["messages"])
    assert "[1] leave.md, Leave" in (await daram_("show", "work"))[0].splitlines()
    # It stays bound, and is honest about what is not there.
    out, err, code = await daram_("chat", "--conversation", "work", given="What is the capital of Mongolia?\n")
    assert (out, err, code) == ("The documents do not say anything about that.\n", "", 0)


async def test_documents_that_are_not_there_are_said(daram_: Daram) -> None:
    out, err, code = await daram_("chat", "--docs", "nothing", given="hello\n")
    assert (out, code) == ("", 1)
    assert "nothing" in err
