"""The commands of the terminal but `chat`: what they print, in a pipe and as JSON, and how errors are said."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

import daram
from daram.cli import common, serve
from daram.cli.app import cli
from daram.config import open_memory
from daram.errors import ConfigError
from daram.llm import weights
from daram.settings import Settings

Run = Callable[..., Result]
SQUIRREL = "다람쥐를 다랑어라고 부르자"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in this process, on a data directory of its own."""

    def invoke(*arguments: str, **environ: str | None) -> Result:
        return CliRunner().invoke(cli, arguments, env={"DARAM_DATA": str(tmp_path), **environ})

    return invoke


@pytest.fixture
def squirrel(tmp_path: Path) -> str:
    """The id of one conversation, with a question, and an answer of two lines."""
    with daram.sync.open(Settings(data=tmp_path).store) as memory:
        conversation = memory.create("local", title="The squirrel")
        memory.append("local", conversation.id, [daram.user(SQUIRREL), daram.assistant("Done.\nA tuna it is.")])
        return conversation.id


def python(code: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]  # subprocess's own options


# --- conversations --------------------------------------------------------------------------------------------------


def test_nothing_is_listed_where_nothing_is(run: Run) -> None:
    assert (run("list").stdout, run("list", "--json").stdout) == ("", "[]\n")


def test_list_in_a_pipe_is_separated_by_tabs(run: Run, squirrel: str) -> None:
    id, time, title = run("list").stdout.rstrip("\n").split("\t")
    assert (id, title) == (squirrel, "The squirrel")
    assert time.endswith("+00:00")


def test_list_gives_as_many_as_were_asked_for_the_newest_first(run: Run, tmp_path: Path) -> None:
    with daram.sync.open(Settings(data=tmp_path).store) as memory:
        for number in range(130):
            memory.create("local", id=f"c{number}", title=f"{number}")
        memory.create("somebody-else", title="not yours")
    rows = json.loads(run("list", "--limit", "120", "--json").stdout)
    assert [row["id"] for row in rows] == [f"c{number}" for number in range(129, 9, -1)]
    assert len(run("list", "--limit", "1000").stdout.splitlines()) == 130


@pytest.mark.parametrize("by", ["id", "title"])
def test_show_prints_the_conversation(run: Run, squirrel: str, by: str) -> None:
    shown = run("show", squirrel if by == "id" else "The squirrel").stdout
    assert shown.startswith(f"The squirrel ({squirrel})\n")
    assert f"user\n{SQUIRREL}\n" in shown
    assert shown.endswith("assistant\nDone.\nA tuna it is.\n")


def test_show_as_json_has_everything(run: Run, squirrel: str) -> None:
    document = json.loads(run("show", squirrel, "--json").stdout)
    assert document["conversation"]["title"] == "The squirrel"
    assert [m["text"] for m in document["messages"]] == [SQUIRREL, "Done.\nA tuna it is."]
    assert document["answers"] == []


def test_show_reads_every_page(run: Run, tmp_path: Path) -> None:
    with daram.sync.open(Settings(data=tmp_path).store) as memory:
        for batch in range(3):
            memory.append("local", "long", [daram.user(f"{batch}-{n}") for n in range(100)], create=True)
    messages = json.loads(run("show", "long", "--json").stdout)["messages"]
    assert [m["text"] for m in messages] == [f"{batch}-{n}" for batch in range(3) for n in range(100)]


def test_search_finds_korean_and_says_where(run: Run, squirrel: str) -> None:
    (line,) = run("search", "다랑어").stdout.splitlines()
    conversation, message, text = line.split("\t")
    assert (conversation, text) == (squirrel, SQUIRREL)
    assert message.startswith("msg_")
    (hit,) = json.loads(run("search", "다랑어", "--conversation", "The squirrel", "--json").stdout)
    assert hit["message"]["text"] == SQUIRREL


def test_search_that_finds_nothing_says_so_on_stderr(run: Run, squirrel: str) -> None:
    result = run("search", "whale")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "Nothing found.\n", 0)


def test_rename_and_delete(run: Run, squirrel: str) -> None:
    assert run("rename", "The squirrel", "참치").exit_code == 0
    assert run("show", "참치").stdout.startswith(f"참치 ({squirrel})")
    refused = run("delete", "참치")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert run("delete", "참치", "--yes").exit_code == 0
    gone = run("show", squirrel)
    assert (gone.stdout, gone.exit_code) == ("", 1)
    assert run("search", "다랑어").stdout == ""


def test_a_title_that_two_conversations_have_names_neither(run: Run, tmp_path: Path) -> None:
    with daram.sync.open(Settings(data=tmp_path).store) as memory:
        ids = {memory.create("local", title="twin").id for _ in range(2)}
    result = run("delete", "twin", "--yes")
    assert result.exit_code == 1
    assert all(id in result.stderr for id in ids)
    assert len(run("list").stdout.splitlines()) == 2


def test_another_owner_sees_nothing(run: Run, squirrel: str) -> None:
    assert run("list", "--owner", "mallory").stdout == ""
    assert run("show", squirrel, "--owner", "mallory").exit_code == 1
    assert run("search", "다랑어", DARAM_OWNER="mallory").stdout == ""


def test_a_message_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "a\x1b[2Jb\x07\x9bc\td\r\ne\x7f"
    assert common.printable(evil) == evil  # a file gets what is stored
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert common.printable(evil) == "a�[2Jb��c\td�\ne�"
    assert common.one_line(" a\n b\x1b ") == "a b�"
    assert common.one_line(None) == common.one_line(" \n") == "(untitled)"


# --- errors ---------------------------------------------------------------------------------------------------------


def test_an_error_is_one_line_on_stderr(run: Run) -> None:
    result = run("show", "nothing")
    assert (result.stdout, result.stderr, result.exit_code) == (
        "",
        "daram: no conversation 'nothing' for this owner\n",
        1,
    )


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        (("list",), {"DARAM_PORT": "x"}, "DARAM_PORT: 'x' cannot be used"),
        (("serve", "--port", "70000"), {}, "--port: '70000' cannot be used"),
        (("chat", "--model", "gpt"), {}, "--model: 'gpt' cannot be used"),
        (("list", "--store", "nosql://x"), {}, "nosql"),
        (("list",), {"DARAM_CACHE": "tape://x"}, "DARAM_CACHE"),
    ],
)
def test_a_wrong_setting_ends_with_2_and_is_named(
    run: Run, arguments: tuple[str, ...], environ: dict[str, str], named: str
) -> None:
    result = run(*arguments, **environ)
    assert result.exit_code == 2
    assert result.stderr.startswith("daram: ")
    assert named in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_nobody_foresaw_is_one_line_too_and_debug_shows_where(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(settings: Settings) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("daram.cli.conversations.open_memory", broken)
    assert run("list").stderr == "daram: RuntimeError: first second (DARAM_DEBUG=1 shows where)\n"
    debug = run("list", DARAM_DEBUG="1").stderr
    assert debug.startswith("Traceback")
    assert debug.endswith("daram: RuntimeError: first second\n")


def test_a_database_that_is_none_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "daram.db").write_bytes(b"This is no database. " * 300)
    result = run("list")
    assert result.exit_code == 1
    assert "daram.db" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error(squirrel: str, tmp_path: Path) -> None:
    with daram.sync.open(Settings(data=tmp_path).store) as memory:
        memory.append("local", squirrel, [daram.user("x" * 100_000) for _ in range(10)])
    with subprocess.Popen(
        [sys.executable, "-m", "daram", "show", squirrel],
        env={**os.environ, "DARAM_DATA": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) != 0


# --- starting, and what is not installed ----------------------------------------------------------------------------


def test_help_starts_without_what_only_some_commands_need() -> None:
    code = (
        "import sys\nsys.argv = ['daram', '--help']\nfrom daram.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    result = python(code)
    loaded = set(result.stderr.split())
    assert "serve" in result.stdout
    assert "click" in loaded
    assert not loaded & {"apsw", "httpx", "rich", "chainlit", "uvicorn", "xllamacpp"}


WITHOUT_EXTRAS = """
import sys
for name in ("chainlit", "fastapi", "starlette", "uvicorn", "xllamacpp", "pytest", "hypothesis"):
    sys.modules[name] = None  # as if it were not installed
from daram.cli import main
main()
"""


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("list", 0, ""),
        ("serve --port 0", 1, 'pip install "daram[serve]"'),
        ("doctor", 1, 'pip install "daram[local]"'),
    ],
)
def test_without_the_extras_the_rest_works_and_says_what_to_install(
    tmp_path: Path, command: str, code: int, words: str
) -> None:
    result = python(WITHOUT_EXTRAS, *command.split(), env={**os.environ, "DARAM_DATA": str(tmp_path)})
    assert result.returncode == code, result.stderr
    assert words in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


# --- serve ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "8.8.8.8"])
def test_an_address_for_others_needs_names_and_accounts(run: Run, host: str) -> None:
    result = run("serve", "--host", host, "--port", "0")
    assert result.exit_code == 2
    assert f"DARAM_HOST: {host} can be reached from other machines" in result.stderr
    assert "DARAM_ALLOWED_HOSTS" in result.stderr
    assert "daram user add" in result.stderr


def test_a_host_that_is_no_address_is_named(run: Run) -> None:
    result = run("serve", "--host", "example.org")
    assert (result.exit_code, "DARAM_HOST: 'example.org' is not an address" in result.stderr) == (2, True)


def test_a_port_that_is_taken_is_named(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port))
    assert result.exit_code == 2
    assert f"port {port} of 127.0.0.1 cannot be had" in result.stderr
    assert "--port 0" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_serve_says_where_the_page_is_what_the_model_lacks_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    environ = {**os.environ, "DARAM_DATA": str(tmp_path), "DARAM_MODEL": "local"}
    with subprocess.Popen(
        [sys.executable, "-m", "daram", "serve", "--port", "0"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line + process.stderr.read()
        assert httpx.get(f"{found[0]}healthz", timeout=60).json() == {"status": "ok"}
        assert f"{found[0]}login/link?token=" in process.stdout.readline()
        assert "sqlite:///" in process.stderr.readline()
        assert "daram model get" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


def test_an_identity_provider_lets_people_in_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_has_passwords", lambda _settings: False)
    named = Settings(data=tmp_path, host="0.0.0.0", allowed_hosts=("chat.example.org",))
    with pytest.raises(ConfigError, match="daram user add"):
        serve._check_open_to_others(named)
    serve._check_open_to_others(dataclasses.replace(named, oidc_url="https://sso.example.org", oidc_client="daram"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("others", ["a proxy's", "the journal's"])
def test_a_link_that_logs_in_is_not_told_to_who_is_not_at_this_machine(tmp_path: Path, others: str) -> None:
    reading, writing = os.pipe()
    given = {"DARAM_PUBLIC_URL": "https://chat.example.org"}
    if others == "the journal's":
        log = os.fstat(writing)
        given = {"JOURNAL_STREAM": f"{log.st_dev}:{log.st_ino}"}
    with (
        open(reading) as said,
        subprocess.Popen(
            [sys.executable, "-m", "daram", "serve", "--port", "0"],
            env={**os.environ, "DARAM_DATA": str(tmp_path), "DARAM_MODEL": "local", **given},
            stdout=writing,
        ) as process,
    ):
        os.close(writing)
        where, how = said.readline(), said.readline()
        assert given.get("DARAM_PUBLIC_URL", "http://127.0.0.1") in where
        assert how.strip().endswith("daram user link local")
        process.send_signal(signal.SIGINT)
        assert said.read() == ""
        assert process.wait(60) == 0


# --- doctor and config ----------------------------------------------------------------------------------------------


def doctor(run: Run, **environ: str | None) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code and the findings: what -> (state, text)."""
    result = run("doctor", "--json", **environ)
    document = json.loads(result.stdout)
    assert document["healthy"] is (result.exit_code == 0)
    return result.exit_code, {f["about"]: (f["state"], f["text"]) for f in document["findings"]}


def test_doctor_says_engine_file_durability_and_what_a_sync_costs(run: Run, tmp_path: Path) -> None:
    _, found = doctor(run)
    assert "SQLite" in found["engine"][1]
    assert found["location"][1] == str(tmp_path / "daram.db")
    assert "FULL" in found["durability"][1]
    assert float(found["fsync"][1].split()[0]) > 0
    assert "daram" in run("doctor").stdout


def test_doctor_says_what_model_is_missing(run: Run) -> None:
    code, found = doctor(run, DARAM_MODEL="local")
    assert code == 1
    state, text = found["model"]
    assert state == "missing"
    assert "daram model get" in text


def test_doctor_says_that_an_endpoint_is_down(run: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        code, found = doctor(run, DARAM_MODEL="openai:m", OPENAI_BASE_URL=url)
    assert code == 1
    assert found["model"][0] == "missing"
    assert url in found["model"][1]


def test_doctor_notes_what_is_set_and_not_used(run: Run) -> None:
    _, found = doctor(run, DARAM_STROE="x", OPENAI_API_KEY="k")
    assert found["DARAM_STROE"][0] == "note"
    assert "OPENAI_MODEL=NAME" in found["OPENAI_API_KEY"][1]


def test_doctor_says_that_the_store_cannot_be_opened(run: Run, tmp_path: Path) -> None:
    (tmp_path / "daram.db").write_bytes(b"This is no database. " * 300)
    code, found = doctor(run)
    assert (code, found["store"][0]) == (1, "missing")


def test_config_prints_the_settings_and_masks_the_key(run: Run, tmp_path: Path) -> None:
    printed = run("config", OPENAI_API_KEY="hunter2", DARAM_WINDOW="7").stdout
    assert f"DARAM_DATA={tmp_path}\n" in printed
    assert "DARAM_WINDOW=7\n" in printed
    assert "OPENAI_API_KEY=***\n" in printed
    assert "hunter2" not in printed
    shown = json.loads(run("config", "--json", "--store", "memory://").stdout)
    assert shown["DARAM_STORE"] == "memory://"


# --- the weights ----------------------------------------------------------------------------------------------------


def test_model_list_names_what_can_be_fetched(run: Run) -> None:
    assert set(weights.MODELS) == {line.split()[0] for line in run("model", "list").stdout.splitlines()}
    rows = json.loads(run("model", "list", "--json").stdout)
    assert [row["path"] for row in rows] == [None] * len(weights.MODELS)


def test_model_path_says_which_file_is_used(run: Run, tmp_path: Path) -> None:
    missing = run("model", "path")
    assert (missing.exit_code, "daram model get" in missing.stderr) == (1, True)
    own = tmp_path / "own.gguf"
    assert run("model", "path", DARAM_LOCAL_MODEL=str(own)).exit_code == 1
    own.touch()
    assert run("model", "path", DARAM_LOCAL_MODEL=str(own)).stdout == f"{own}\n"


def test_model_get_of_an_unknown_name_lists_the_known_ones(run: Run) -> None:
    result = run("model", "get", "gpt")
    assert result.exit_code == 1
    assert all(name in result.stderr for name in weights.MODELS)


def test_model_get_that_fails_says_what_else_can_be_done(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("model", "get", "--find-links", str(tmp_path / "empty"))
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("daram: ")
    assert "DARAM_LOCAL_MODEL" in last
    assert "OPENAI_BASE_URL" in last


def test_model_get_if_needed_leaves_other_models_alone(run: Run, tmp_path: Path) -> None:
    for environ in ({"DARAM_MODEL": "openai:m"}, {"DARAM_LOCAL_MODEL": str(tmp_path / "own.gguf")}):
        result = run("model", "get", "--if-needed", "--find-links", str(tmp_path), **environ)
        assert (result.exit_code, result.stdout) == (0, "")


async def test_open_memory_is_the_store_that_the_commands_use(run: Run, tmp_path: Path) -> None:
    async with await open_memory(Settings(data=tmp_path)) as memory:
        await memory.create("local", title="from elsewhere")
    completed = python("from daram.cli import main; main()", "list", env={**os.environ, "DARAM_DATA": str(tmp_path)})
    assert completed.stdout.endswith("\tfrom elsewhere\n")
