"""Daram in a Django project: the project's own tests on each engine, and the life of its processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.postgres import Databases

from daram.testing.servers.base import free_port

SITE = Path(__file__).parent / "django_site"


def environment(folder: Path, **daram: Any) -> dict[str, str]:
    """What the site is told: where its files are, and ``DARAM``."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "site_app.settings",
        "SITE_FOLDER": str(folder),
        "SITE_DARAM": json.dumps(daram),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(folder: Path, *words: str, env: dict[str, str] | None = None, **daram: Any) -> str:
    """What a program of the site printed, which must end well and complain of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=SITE,
        env=environment(folder, **daram) | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for sign in ("Traceback", "Task was destroyed", "never awaited", "unclosed"):
        assert sign not in done.stderr, done.stderr
    return done.stdout + done.stderr if words[0] == "manage.py" else done.stdout


def program(folder: Path, text: str, **more: Any) -> list[str]:
    """The lines that a program prints that runs in the project."""
    return run(folder, "-c", f"import django; django.setup()\n{text}", **more).splitlines()


def test_the_projects_tests(url: str, tmp_path: Path) -> None:
    printed = run(tmp_path, "manage.py", "test", "--pattern", "site_tests.py", env={"SITE_STORE": url})
    assert "\nOK\n" in printed


def test_beside_a_project_on_postgresql(databases: Databases, tmp_path: Path) -> None:
    """Its tables and Daram's in one database, each in its schema; Django's runner renames it for tests."""
    url = databases.url(tmp_path)
    env = {"SITE_DATABASE": url}
    run(tmp_path, "manage.py", "migrate", "-v0", env=env)
    asked = "from daram.adapters.django import get_chatbot\nprint(get_chatbot().ask('ann', 'c', 'tuna').text)"
    assert program(tmp_path, asked, env=env) == ["1 so far: tuna"]
    assert program(tmp_path, asked.replace("tuna", "oak"), env=env) == ["2 so far: tuna | oak"]
    where = "from daram.adapters.django.databases import store_url; print(store_url('default'))"
    assert program(tmp_path, where, env=env) == [url.partition("?")[0]]
    printed = run(tmp_path, "manage.py", "daram", "check", "--json", env=env)
    assert json.loads(printed.splitlines()[0])["messages"] == 4


# --- the settings ---------------------------------------------------------------------------------------------------


def test_a_file_of_its_own_beside_the_projects(tmp_path: Path) -> None:
    run(tmp_path, "manage.py", "migrate", "-v0")
    program(tmp_path, "from daram.adapters.django import get_memory\nget_memory().create('ann', id='c')")
    assert {file.name for file in tmp_path.iterdir()} == {"db.sqlite3", "db.daram.db"}
    assert "c\t" in run(tmp_path, "manage.py", "daram", "list", "--owner", "ann")


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"STOER": "x"}, "?: (daram.E001) DARAM has no setting STOER; there are: STORE,"),
    ({"WINDOW": "many"}, """?: (daram.E001) DARAM["WINDOW"]: 'many' cannot be used; allowed: a whole number"""),
    ({"STORE": "mysql://x"}, '?: (daram.E001) DARAM["STORE"]: no engine for'),
    ({"DATABASE": "other"}, "?: (daram.E001) DATABASES has no 'other'; there are: default"),
    ({"STORE": "memory://", "DATABASE": "default"}, '?: (daram.E001) DARAM has both "STORE" and "DATABASE"'),
    ({"STORE": "FILE"}, "?: (daram.E002) DARAM[\"STORE\"] is the file of DATABASES['default']"),
    ({"CACHE": "django:other"}, "?: (daram.E004) DARAM[\"CACHE\"]: Django has no cache 'other'"),
    (
        {"CACHE": "memory://,django:pickled"},
        "?: (daram.W002) DARAM[\"CACHE\"]: CACHES['pickled'] unpickles what it finds",
    ),
    ({"CACHE": "django:packed"}, ""),
    ({"MODEL": "site_app.no.such"}, "?: (daram.E001) DARAM[\"MODEL\"]: No module named 'site_app.no'"),
    ({"MODEL": "site_app.settings.CACHES"}, '?: (daram.E001) DARAM["MODEL"]: must be a function or the dotted path'),
    ({"OWNER": "site_app.no.such"}, '?: (daram.E001) DARAM["OWNER"]: No module named'),
    ({"GROUPS": "site_app.no.such"}, '?: (daram.E001) DARAM["GROUPS"]: No module named'),
    ({"DOCUMENTS": "mysql://x"}, '?: (daram.E001) DARAM["DOCUMENTS"]: no engine for'),
    ({"DOCUMENT_WEIGHTS": "most"}, """?: (daram.E001) DARAM["DOCUMENT_WEIGHTS"]: 'most' cannot be used"""),
    ({"STORE": "memory://"}, "?: (daram.W001) every process keeps its conversations to itself"),
]


def test_what_cannot_be_used_is_said_by_the_check(tmp_path: Path) -> None:
    lines = program(
        tmp_path,
        f"""
from django.conf import settings
from django.core.checks import run_checks
from django.test import override_settings
print(run_checks())
for daram, _ in {REFUSED!r}:
    if daram.get("STORE") == "FILE":
        daram = {{"STORE": f"sqlite:///{{settings.DATABASES['default']['NAME']}}"}}
    with override_settings(DARAM=daram):
        print(" ".join(str(problem).replace(chr(10), " ") for problem in run_checks()))
""",
    )
    assert lines[0] == "[]"
    for line, (_, words) in zip(lines[1:], REFUSED, strict=True):
        assert line.startswith(words) and bool(line) is bool(words), line


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ({"NAME": "a b", "USER": "u@x", "PASSWORD": "p:/@"}, "postgresql://u%40x:p%3A%2F%40@/a%20b"),
        ({"NAME": "d", "HOST": "::1", "PORT": 5433}, "postgresql://[::1]:5433/d"),
        ({"NAME": "d", "HOST": "/run/pg", "PORT": "5433"}, "postgresql:///d?host=%2Frun%2Fpg&port=5433"),
        (
            {"NAME": "d", "HOST": "h", "OPTIONS": {"sslmode": "require", "pool": {}, "isolation_level": 2}},
            "postgresql://h/d?sslmode=require",
        ),
        ({"OPTIONS": {"service": "mine"}}, "postgresql:///?service=mine"),
    ],
)
def test_the_url_of_an_alias(said: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg_pool", None)  # the extra brings none
    from psycopg.conninfo import conninfo_to_dict

    from daram.adapters.django.databases import postgres_url

    assert postgres_url(said) == url
    known = conninfo_to_dict(url)
    for key, name in (("NAME", "dbname"), ("USER", "user"), ("PASSWORD", "password"), ("HOST", "host")):
        assert (known.get(name) or "") == said.get(key, ""), key


def test_migrations_are_complete(tmp_path: Path) -> None:
    assert "No changes" in run(tmp_path, "manage.py", "makemigrations", "--check", "--dry-run", "daram")


# --- the life of a process ------------------------------------------------------------------------------------------


def test_threads_that_ask_at_once_open_one_store(tmp_path: Path) -> None:
    assert program(
        tmp_path,
        """
import threading
from daram.adapters.django import get_chatbot, get_memory
start, found = threading.Barrier(16), set()
def ask():
    start.wait()
    found.add((id(get_memory().inner), id(get_chatbot().inner)))
threads = [threading.Thread(target=ask) for _ in range(16)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
print(len(found))
""",
    ) == ["1"]


def test_a_forked_child_has_a_life_of_its_own(tmp_path: Path, url: str) -> None:
    lines = program(
        tmp_path,
        """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking while threads run, which this is about
from daram.adapters.django import get_chatbot, get_memory
print(get_chatbot().ask("ann", "c", "parent").text, flush=True)
children = []
for number in range(3):
    if (pid := os.fork()) == 0:
        print(get_chatbot().ask("ann", "c", f"child").text.split(":")[0], flush=True)
        raise SystemExit
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
print(get_chatbot().ask("ann", "c", "again").text)
""",
        STORE=url,
        WAIT=120,
    )
    assert lines[0] == "1 so far: parent"
    assert sorted(lines[1:4]) == ["2 so far", "3 so far", "4 so far"]
    assert lines[4] == "5 so far: parent | child | child | child | again"


def test_the_end_of_a_process_keeps_what_was_said(tmp_path: Path, url: str) -> None:
    """A running answer has ``DRAIN`` seconds, then it is kept as incomplete, and nothing is left open."""
    program(
        tmp_path,
        """
from daram.adapters.django import get_chatbot
running = get_chatbot().start("ann", "c", "tell me")
events = running.events()
while "acorn" not in next(events).text: pass
""",
        STORE=url,
        MODEL="site_app.model.endless",
        DRAIN=0,
    )
    lines = program(
        tmp_path,
        """
from daram.adapters.django import get_memory
for message in get_memory().tail("ann", "c"): print(message.role, message.status, message.text.split()[0])
print(len(get_memory().answers("ann", "c")))
""",
        STORE=url,
    )
    assert lines == ["user complete tell", "assistant incomplete acorn", "0"]


def test_an_answer_whose_process_was_killed_is_closed_by_the_next(tmp_path: Path, url: str) -> None:
    asked = """
import sys, time
import django; django.setup()
from daram.adapters.django import get_chatbot
events = get_chatbot().start("ann", "c", "tell me").events()
while "acorn" not in next(events).text: pass
print("here", flush=True)
time.sleep(600)
"""
    more = environment(tmp_path, STORE=url, MODEL="site_app.model.endless", LEASE=5)
    with subprocess.Popen([sys.executable, "-c", asked], cwd=SITE, env=more, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"here\n"
        finally:
            process.kill()
    lines = program(
        tmp_path,
        """
from daram.adapters.django import get_chatbot, get_memory
print(get_chatbot().ask("ann", "c", "still there?").text)
for message in get_memory().tail("ann", "c")[:2]: print(message.role, message.status)
""",
        STORE=url,
        LEASE=5,
        WAIT=120,
    )
    assert lines == ["2 so far: tell me | still there?", "user complete", "assistant incomplete"]


def test_runserver_reloads_when_it_likes(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(SITE, site)
    run(tmp_path, "manage.py", "migrate", "-v0")
    cookie = program(
        tmp_path,
        """
from django.contrib.auth.models import User
from django.test import Client
client = Client(); client.force_login(User.objects.create_user("ann"))
print(client.cookies["sessionid"].value)
""",
    )[0]
    port = free_port()
    log = tmp_path / "runserver.log"
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", cookies={"sessionid": cookie}, trust_env=False) as client,
        log.open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-W", "error", "manage.py", "runserver", f"127.0.0.1:{port}"],
            cwd=site,
            env=environment(tmp_path) | {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it runs the server in a child
        ) as process,
    ):

        def say(text: str, expected: str) -> None:
            """Say it once, when the server is the one that answers so."""
            deadline, again = time.monotonic() + 120, time.monotonic() + 20
            while True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                if time.monotonic() > again:  # Django's reloader does not see what changed before its first look
                    os.utime(model, ns=(time.time_ns() + 10**9 * (len(told) + 9),) * 2)
                    again += 60
                try:
                    if client.get("/word/", timeout=60).text == expected:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
            answer = client.post("/chats/c/", json={"user_input": text}, timeout=60)
            assert answer.json()["AI"].startswith(f"{len(told) + 1} {expected}"), answer.text
            told.append(text)

        told: list[str] = []
        model = site / "site_app" / "model.py"
        try:
            say("one", "so far")
            for word in ("by now", "in all"):
                text = model.read_text("utf-8")
                before = "so far" if word == "by now" else "by now"
                model.write_text(text.replace(before, word), "utf-8")
                os.utime(model, ns=(time.time_ns() + 10**9 * (len(told) + 1),) * 2)
                say(word, word)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    lines = program(
        tmp_path,
        """
from daram.adapters.django import get_memory, owner_of
from django.contrib.auth.models import User
for message in get_memory().tail(owner_of(User.objects.get()), "c"): print(message.status, message.text)
""",
    )
    assert [line for line in lines if line.endswith(("one", "by now", "in all"))]
    assert len(lines) == 6 and all(line.startswith("complete ") for line in lines)
    for sign in ("Traceback", "Task was destroyed", "never awaited", "unclosed"):
        assert sign not in log.read_text(), log.read_text()


def test_a_store_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "later" / "daram.db"
    lines = program(
        tmp_path,
        f"""
from pathlib import Path
from daram.errors import StoreError
from daram.adapters.django import get_memory
try:
    get_memory()
except StoreError as error:
    print("not yet")
Path({str(file.parent)!r}).mkdir()
print(get_memory().create("ann", id="c").id)
""",
        STORE=f"sqlite:///{file}",
    )
    assert lines == ["not yet", "c"]


def test_under_an_asgi_server_and_the_thread_sensitive_cache(tmp_path: Path) -> None:
    """A synchronous view waits on the one thread of its request, which Django's own asynchronous cache would need."""
    lines = program(
        tmp_path,
        """
import asyncio
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
client = Client(); client.force_login(User.objects.create_user("ann"))
cookie = f"sessionid={client.cookies['sessionid'].value}".encode()
application = get_asgi_application()

async def say(path, text):
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "http_version": "1.1",
             "headers": [(b"cookie", cookie), (b"host", b"localhost")]}
    asked = ApplicationCommunicator(application, scope)
    await asked.send_input({"type": "http.request", "body": b'{"user_input": "%s"}' % text})
    status = (await asked.receive_output(60))["status"]
    body = (await asked.receive_output(60))["body"].decode()
    await asked.wait(60)
    return status, body

async def main():
    print(await say("/chats/c/", b"one"))
    print(await say("/achats/c/", b"two"))
    print(await say("/chats/c/", b"three"))
asyncio.run(main())
print(sum("daram:cache:" in key for key in cache._cache))
""",
        STORE=f"sqlite:///{tmp_path}/d.db",
        CACHE="django:default",
    )
    assert lines == [
        """(200, '{"AI": "1 so far: one"}')""",
        """(200, '{"AI": "2 so far: one | two"}')""",
        """(200, '{"AI": "3 so far: one | two | three"}')""",
        "1",
    ]
