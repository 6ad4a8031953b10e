"""`daram docs`, and `daram chat --docs`: in a pipe, as JSON, from the web, interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daram.cli.app import cli

Run = Callable[..., Result]
LEAVE = "# Leave\n\nEmployees earn two days of paid leave for each month worked.\n"
FOOD = "식당은 평일 오전 11시 30분부터 오후 2시까지 연다. 금요일에는 비빔밥이 나온다.\n"


@pytest.fixture
def run(tmp_path: Path, in_process: None) -> Run:
    """Runs a command in this process, on a data directory of its own, by words alone."""

    def invoke(*arguments: str | Path, **environ: str) -> Result:
        settings = {"DARAM_DATA": str(tmp_path / "data"), "DARAM_EMBEDDER": "off", **environ}
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], env=settings)

    return invoke


@pytest.fixture
def leave(tmp_path: Path) -> Path:
    return written(tmp_path / "leave.md", LEAVE)


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.stderr
    return [line.split("\t") for line in result.stdout.splitlines()]


# --- files ----------------------------------------------------------------------------------------------------------


def test_documents_are_put_in_found_listed_and_removed(run: Run, leave: Path, tmp_path: Path) -> None:
    food = written(tmp_path / "food.txt", FOOD)
    added = run("docs", "add", leave, food, "--collection", "handbook")
    assert [row[1:] for row in rows(added)] == [["ready", "1", "leave.md"], ["ready", "1", "food.txt"]]
    assert added.stderr == ""  # nothing but what was asked for, in a pipe

    assert rows(run("docs", "list")) == [["local", "handbook", "handbook"]]
    listed = rows(run("docs", "list", "--collection", "handbook"))
    assert sorted(row[3] for row in listed) == ["food.txt", "leave.md"]

    (best, *_) = rows(run("docs", "search", "How many days of paid leave?", "--collection", "handbook"))
    assert best[1:3] == ["leave.md", "Leave"]
    assert "two days of paid leave" in best[3]
    assert rows(run("docs", "search", "금요일에는 무엇이 나오나?"))[0][1] == "food.txt"

    assert run("docs", "remove", "leave.md", "--collection", "handbook").exit_code == 0
    assert [row[3] for row in rows(run("docs", "list", "--collection", "handbook"))] == ["food.txt"]
    assert rows(run("docs", "search", "paid leave", "--collection", "handbook")) == []
    assert run("docs", "remove", "--all", "--collection", "handbook").exit_code == 2  # nobody to ask
    assert run("docs", "remove", "--all", "--yes", "--collection", "handbook").exit_code == 0
    assert rows(run("docs", "list")) == []


def test_a_changed_file_replaces_what_it_was_and_the_same_changes_nothing(run: Run, leave: Path) -> None:
    first = json.loads(list_json(run, leave))
    assert json.loads(list_json(run, leave)) == first
    leave.write_text(LEAVE.replace("two days", "three days"))
    (changed,) = json.loads(list_json(run, leave))
    assert (changed["id"], changed["passages"]) == (first[0]["id"], 1)
    assert changed["digest"] != first[0]["digest"]
    (only,) = rows(run("docs", "search", "paid leave"))
    assert "three days" in only[3]


def list_json(run: Run, path: Path) -> str:
    assert run("docs", "add", path).exit_code == 0
    return run("docs", "list", "--collection", "documents", "--json").stdout


def test_an_original_is_kept_only_where_it_is_asked_for(run: Run, leave: Path, tmp_path: Path) -> None:
    secret = "the whole of it, as it was uploaded: <!-- acorn-1794 -->"
    page = written(tmp_path / "page.html", f"<p>Squirrels hide acorns.</p>{secret}")
    run("docs", "add", page)
    assert not in_files(tmp_path / "data", b"acorn-1794")
    run("docs", "add", page, "--keep", "--collection", "kept")
    assert in_files(tmp_path / "data", b"acorn-1794")


def in_files(directory: Path, needle: bytes) -> bool:
    return any(needle in path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_one_that_cannot_be_read_is_said_and_the_others_are_read(run: Run, leave: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 no more")
    result = run("docs", "add", broken, tmp_path / "a.exe", tmp_path, tmp_path / "none.md", leave)
    assert result.exit_code == 1
    assert [line.split("\t")[1::2] for line in result.stdout.splitlines()] == [
        ["failed", "broken.pdf"],
        ["ready", "leave.md"],
    ]
    said = result.stderr.splitlines()
    assert len(said) == 4
    assert sum("broken.pdf" in line for line in said) == 1
    assert any("is a directory" in line for line in said)


def test_two_files_of_one_name_are_refused_before_one_replaces_the_other(run: Run, leave: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    result = run("docs", "add", leave, written(tmp_path / "other" / "leave.md", FOOD))
    assert result.exit_code == 1
    assert "leave.md" in result.stderr
    assert rows(run("docs", "list")) == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--title-no", "1"],
        ["--official", "--title-no", "1", "--collection", "c"],
        ["--official", "--group", "g"],
        ["second.md", "--title", "T"],
        ["--allow-network", "10.0.0.0/33"],
    ],
)
def test_flags_that_contradict_each_other_are_refused(run: Run, leave: Path, flags: list[str]) -> None:
    assert run("docs", "add", leave, *flags).exit_code == 2


def test_an_engine_without_documents_says_so_and_takes_one_beside_it(run: Run, leave: Path) -> None:
    from daram.testing.servers.redis import RedisServer

    with RedisServer() as server:
        result = run("docs", "add", leave, "--store", server.url)
        assert result.exit_code == 1
        assert "keeps no documents" in result.stderr
        beside = {"DARAM_STORE": server.url, "DARAM_DOCUMENTS": f"sqlite:///{leave.parent}/documents.db"}
        assert [row[1:] for row in rows(run("docs", "add", leave, **beside))] == [["ready", "1", "leave.md"]]
        assert rows(run("docs", "list", "--collection", "documents", **beside))[0][-1] == "leave.md"


# --- whose ----------------------------------------------------------------------------------------------------------


def test_official_titles_are_for_everybody_and_ones_own_are_not(run: Run, leave: Path) -> None:
    assert run("docs", "add", leave, "--official", "--title-no", "7", "--title", "Handbook").exit_code == 0
    assert run("docs", "add", leave, "--collection", "mine").exit_code == 0
    assert run("docs", "add", leave, "--collection", "ours", "--group", "editors").exit_code == 0
    assert rows(run("docs", "list", "--owner", "ann")) == [["official", "7", "Handbook"]]
    assert rows(run("docs", "list", "--owner", "ann", "--official", "--title-no", "7"))[0][3] == "leave.md"
    gone = run("docs", "list", "--owner", "ann", "--collection", "mine")
    assert (gone.exit_code, "mine" in gone.stderr) == (1, True)
    assert rows(run("docs", "search", "paid leave", "--owner", "ann", "--group", "editors", "--collection", "ours"))


# --- references -----------------------------------------------------------------------------------------------------


def test_references_are_kept_corrected_listed_and_removed(run: Run, tmp_path: Path) -> None:
    text = written(tmp_path / "squirrels.md", "# Squirrels\n\nSquirrels hide acorns.\n")
    named = ("--category", "lessons", "--title-no", "1")
    assert run("docs", "reference", "add", text, *named, "--title", "Squirrels").exit_code == 0
    chars = str(len(text.read_text().strip()))
    assert rows(run("docs", "reference", "list")) == [["lessons", "1", "Squirrels", chars]]
    text.write_text("Squirrels hide nuts.")
    assert run("docs", "reference", "add", text, *named).exit_code == 0
    assert rows(run("docs", "reference", "list", "--category", "lessons")) == [["lessons", "1", "squirrels", "20"]]
    assert rows(run("docs", "reference", "list", "--own")) == []
    assert run("docs", "reference", "remove", *named).exit_code == 0
    missing = run("docs", "reference", "remove", *named)
    assert (missing.exit_code, "lessons" in missing.stderr) == (1, True)


def test_a_reference_that_is_no_plain_text_is_read_by_its_loader(run: Run, tmp_path: Path) -> None:
    page = written(tmp_path / "lesson.html", "<h1>Squirrels</h1><p>They hide acorns.</p><script>no()</script>")
    assert run("docs", "reference", "add", page, "--category", "c", "--title-no", "1").exit_code == 0
    ((_, _, title, chars),) = rows(run("docs", "reference", "list"))
    assert (title, int(chars) < 40) == ("lesson", True)


# --- the web --------------------------------------------------------------------------------------------------------


@contextmanager
def site(pages: dict[str, tuple[str, str]]) -> Iterator[str]:
    """A web site in a thread: path -> (media type, text)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, text = pages.get(self.path, ("", ""))
            self.send_response(200 if kind else 404)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_url_is_fetched_and_fetched_again_replaces_what_it_was(run: Run) -> None:
    pages = {"/leave": ("text/html", "<h1>Leave</h1><p>Two days of paid leave a month.</p>")}
    with site(pages) as url:
        refused = run("docs", "add", f"{url}/leave")
        assert (refused.exit_code, "no public address" in refused.stderr) == (1, True)
        for days in ("Two", "Three"):
            pages["/leave"] = ("text/html", f"<h1>Leave</h1><p>{days} days of paid leave a month.</p>")
            ((_, state, _, name),) = rows(run("docs", "add", f"{url}/leave", "--allow-network", "127.0.0.0/8"))
            assert (state, name) == ("ready", f"{url}/leave")
        (only,) = rows(run("docs", "search", "paid leave"))
        assert "Three days" in only[3]
        missing = run("docs", "add", f"{url}/none", "--allow-network", "127.0.0.0/8")
        assert (missing.exit_code, "404" in missing.stderr) == (1, True)


def test_a_sitemap_brings_all_its_pages(run: Run, leave: Path) -> None:
    pages = {"/a": ("text/plain", "Squirrels hide acorns."), "/b": ("text/html", "<p>Otters swim.</p>")}
    with site(pages) as url:
        places = "".join(f"<url><loc>{url}{path}</loc></url>" for path in pages)
        pages["/sitemap.xml"] = ("text/xml", f"<urlset>{places}</urlset>")
        added = run("docs", "add", f"{url}/sitemap.xml", "--sitemap", "--allow-network", "127.0.0.0/8")
    assert [row[3] for row in rows(added)] == [f"{url}/a", f"{url}/b"]
    assert run("docs", "add", leave, "--sitemap").exit_code == 1


# --- interrupted ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's here")
def test_what_was_taken_in_before_ctrl_c_is_read_at_the_next_start(tmp_path: Path, leave: Path) -> None:
    environ = {**os.environ, "DARAM_DATA": str(tmp_path / "data"), "DARAM_EMBEDDER": "off", "PYTHONUNBUFFERED": "1"}
    # A document that takes long enough to be caught at: many sections.
    long = written(tmp_path / "long.md", "\n\n".join(f"# Part {n}\n\nSquirrels hide acorn {n}." for n in range(25_000)))
    command = [sys.executable, "-m", "daram", "docs"]
    adding = subprocess.Popen([*command, "add", str(long), str(leave)], env=environ, stderr=subprocess.PIPE)
    try:
        until(lambda: len(states(command, environ)) == 2)
        adding.send_signal(signal.SIGINT)
        _, said = adding.communicate(timeout=120)
    finally:
        adding.kill()
        adding.wait()
    assert adding.returncode == 130
    assert b"read at the next start" in said
    assert "long.md" in [name for name, state in states(command, environ).items() if state != "ready"]
    # What is begun next reads it: here to add something else.
    other = written(tmp_path / "other.txt", FOOD)
    with subprocess.Popen(
        [sys.executable, "-m", "daram", "chat"], env=environ, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as chat:
        until(lambda: set(states(command, environ).values()) == {"ready"})
        chat.communicate(timeout=120)
    assert subprocess.run([*command, "add", str(other)], env=environ, timeout=120, check=False).returncode == 0


def states(command: list[str], environ: dict[str, str]) -> dict[str, str]:
    listing = [*command, "list", "--collection", "documents"]
    listed = subprocess.run(listing, env=environ, capture_output=True, text=True, timeout=120, check=False)
    return {line.split("\t")[3]: line.split("\t")[1] for line in listed.stdout.splitlines()}


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
