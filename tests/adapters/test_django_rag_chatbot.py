"""examples/django_rag_chatbot, copied as a stranger does: its own tests, what its README says, and the whole of it as
its compose file starts it, on real servers."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

from daram.testing.servers import PostgresServer, RedisServer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "django_rag_chatbot"
TOLD, ASKED = "앞으로 다람쥐를 다랑어라고 부를게", "다람쥐를 뭐라고 부르지?"
BOOK = {"category": "BOOKS", "title_no": 2}
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example outside of the clone."""
    copy = tmp_path_factory.mktemp("stranger") / "study"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3", "*.db"))
    return copy


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """The base URL of a scripted model, which knows what it is shown."""
    with subprocess.Popen(
        [sys.executable, "-m", "daram.testing.model_server"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def run(example: Path, *words: str, **environment: str) -> str:
    """What a command printed, which must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *words],
        cwd=example,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
def test_its_own_tests(example: Path, valkey_server: RedisServer) -> None:
    valkey_server.flush()
    assert "\nOK\n" in run(example, "test", REDIS_URL=valkey_server.url)
    assert "No changes" in run(example, "makemigrations", "--check", "--dry-run")
    assert "no issues" in run(example, "check")


# --- what the README says -------------------------------------------------------------------------------------------


def commands(number: int = 0) -> list[list[str]]:
    """Those of a block of the README."""
    blocks = re.findall(r"```text\n(.*?)```", (EXAMPLE / "README.md").read_text("utf-8"), re.DOTALL)
    return [shlex.split(line) for line in blocks[number].splitlines()]


def test_the_requirements_are_what_is_tested_here() -> None:
    assert commands()[0] == ["pip", "install", "-r", "requirements.txt"]
    lines = [line for line in (EXAMPLE / "requirements.txt").read_text("utf-8").splitlines() if line[:1] != "#"]
    daram, *others = lines
    path, extras = re.fullmatch(r"(.+?)\[(.+)\]", daram).groups()  # type: ignore[union-attr]
    assert (EXAMPLE / path).resolve() == ROOT
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)
    for wanted in map(Requirement, others):
        assert version(wanted.name) in wanted.specifier, wanted
        assert any(Requirement(line).name == wanted.name for line in known["dev"] if "daram[" not in line), wanted


def test_the_second_command_serves_it(example: Path, model: str, tmp_path: Path) -> None:
    command = commands()[1]
    assert command[0] == "python"
    copy = shutil.copytree(example, tmp_path / "study")
    environment = {**os.environ, "OPENAI_BASE_URL": model, "OPENAI_MODEL": "scripted", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *command[1:], "127.0.0.1:0"],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said = until(process, r"development server at (http://\S+?)/?$")
            token = re.search(r"^Token: (\S+)$", said, re.MULTILINE)
            assert token is not None, said
            url = said.rsplit("server at ", 1)[1].strip()
            with httpx.Client(base_url=url, headers={"Authorization": f"Token {token[1]}"}, timeout=120) as web:
                chat = begin(web, TOLD)
                assert "다랑어" in go_on(web, chat, ASKED).json()["AI"]
        finally:
            process.terminate()


def test_the_other_commands_put_in_what_is_ones_own(example: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(example, tmp_path / "study")
    for python, program, *words in commands(2):
        assert (python, program) == ("python", "manage.py")
        printed = run(copy, *("lessons/querysets.md" if word in ("FILE", "FILE…") else word for word in words))
    assert "A QuerySet is lazy" in printed
    assert "BOOKS\t3\tOtters" in run(copy, "daram", "docs", "reference", "list")


def until(process: subprocess.Popen[str], pattern: str) -> str:
    """What a program printed up to a line."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if re.search(pattern, line.rstrip()):
            return said
    raise AssertionError(said)


def test_the_application_is_short() -> None:
    lines = [
        line
        for path in ("chats/views.py", "study/urls.py", "accounts/models.py")
        for line in re.sub(r'"""[\s\S]*?"""', "", (EXAMPLE / path).read_text("utf-8")).splitlines()
        if line.strip()
    ]
    assert len(lines) <= 65


# --- as the compose file starts it ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLE / "compose.yaml").read_text("utf-8"))
    return found


def test_compose_names_what_there_is(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"prepare", "app", "postgres", "redis"}
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services)
        assert re.search(r":\d", service["image"]) or "build" in service, f"{name}: an image without a version"
        assert {mount.split(":")[0] for mount in service.get("volumes", ())} <= set(compose["volumes"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    build = services["app"]["build"]
    context = (EXAMPLE / build["context"]).resolve()
    dockerfile = context / build["dockerfile"]
    assert (context, dockerfile) == (ROOT, EXAMPLE / "Dockerfile")
    ignored = (EXAMPLE / "Dockerfile.dockerignore").read_text("utf-8").split()
    for line in dockerfile.read_text("utf-8").splitlines():
        if line.startswith("COPY "):
            for path in line.split()[1:-1]:
                assert (context / path).exists(), path
                assert any(path.startswith(kept.removeprefix("!")) for kept in ignored if kept[0] == "!"), path
    environment = services["app"]["environment"]
    settings = (EXAMPLE / "study" / "settings.py").read_text("utf-8")
    assert all(f'"{name}"' in settings for name in environment)
    postgres = services["postgres"]["environment"]
    assert environment["DATABASE_URL"].endswith(f"@postgres/{postgres['POSTGRES_DB']}")
    assert environment["DATABASE_URL"].startswith(f"postgresql://{postgres['POSTGRES_USER']}:")
    assert not re.search(r"(?i)password: [^$\s]", (EXAMPLE / "compose.yaml").read_text("utf-8"))


class Study:
    """The example on PostgreSQL and Valkey, in the processes that the image starts."""

    def __init__(self, example: Path, environment: dict[str, str]) -> None:
        self._example = example
        self._environment = environment
        prepared = run(example, "demo", "--prepare", **environment)
        self.token = re.findall(r"^Token: (\S+)$", prepared, re.MULTILINE)[0]
        self.start()

    def start(self) -> None:
        image = re.search(r"^CMD (\[.*\])$", (EXAMPLE / "Dockerfile").read_text("utf-8"), re.MULTILINE)
        assert image is not None
        words = ["127.0.0.1:0" if word == "0.0.0.0:8000" else word for word in json.loads(image[1])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self._example,
            env={**os.environ, **self._environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said = until(self._process, r"Listening at: (http://\S+)")
        self.url = re.findall(r"Listening at: (http://\S+)", said)[0]

    def end(self, how: signal.Signals) -> None:
        os.killpg(self._process.pid, how)
        self._process.communicate(timeout=120)

    def web(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Token {self.token}"}, timeout=120)


@pytest.fixture(scope="module")
def study(
    example: Path, compose: dict[str, Any], postgres_server: PostgresServer, valkey_server: RedisServer, model: str
) -> Iterator[Study]:
    valkey_server.flush()
    here = {
        "SECRET_KEY": "a key for tests only " * 3,
        "ALLOWED_HOSTS": "127.0.0.1",
        "DATABASE_URL": postgres_server.url_of(postgres_server.database()),
        "REDIS_URL": valkey_server.url,
        "OPENAI_API_KEY": "",
        "OPENAI_BASE_URL": model,
        "OPENAI_MODEL": "scripted",
    }
    assert set(here) == set(compose["services"]["app"]["environment"])
    found = Study(example, here)
    try:
        yield found
    finally:
        found.end(signal.SIGTERM)


@pytest.fixture
def web(study: Study) -> Iterator[httpx.Client]:
    with study.web() as client:
        yield client


def begin(web: httpx.Client, words: str) -> str:
    answer = web.post("/api/chats/", json={**BOOK, "user_input": words})
    assert answer.status_code == 201, answer.text
    assert [source["title"] for source in answer.json()["sources"]] == ["다람쥐"]
    return str(answer.json()["id"])


def go_on(web: httpx.Client, chat: str, words: str) -> httpx.Response:
    return web.post(f"/api/chats/{chat}/", json={"user_input": words})


def said(web: httpx.Client, chat: str) -> list[str]:
    found = web.get(f"/api/chats/{chat}/").json()["conversation"]
    return [entry.get("USER") or entry["AI"] for entry in found]


def test_two_turns_at_once_are_both_kept(web: httpx.Client) -> None:
    chat = begin(web, TOLD)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda words: go_on(web, chat, words).status_code, ["하나?", "둘?", "셋?", "넷?"]))
    assert answers == [200] * 4
    found = said(web, chat)
    assert len(found) == 10
    assert sorted(found[2::2]) == sorted(["하나?", "둘?", "셋?", "넷?"])
    assert "다랑어" in go_on(web, chat, ASKED).json()["AI"]


def test_nothing_in_the_cache_is_ever_run(web: httpx.Client, valkey_server: RedisServer, tmp_path: Path) -> None:
    chat = begin(web, TOLD)
    go_on(web, chat, "그래?")
    redis = valkey_server.connect()
    keys = redis.keys("*daram:cache:*")
    assert keys, "the cache is not used"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "boom"),)

    for key in keys:
        redis.set(key, pickle.dumps(Bomb()))
    assert "다랑어" in go_on(web, chat, ASKED).json()["AI"]
    for key in keys:
        redis.delete(key)  # as after ten minutes
    assert "다랑어" in go_on(web, chat, ASKED).json()["AI"]
    redis.close()
    assert not list(tmp_path.iterdir())


def test_a_deleted_chat_is_gone_in_every_process(study: Study, web: httpx.Client) -> None:
    chat = begin(web, TOLD)
    go_on(web, chat, "그래?")
    assert web.delete(f"/api/chats/{chat}/").status_code == 204
    for _ in range(8):
        with study.web() as other:  # a connection of its own, to whichever process takes it
            assert other.get(f"/api/chats/{chat}/").status_code == 404
            assert go_on(other, chat, ASKED).status_code == 404


def test_a_power_cut_in_the_middle_of_an_answer(study: Study, web: httpx.Client) -> None:
    """The question is stored before the model is asked, and the chat goes on in the processes that come after."""
    asked = {**BOOK, "user_input": f"{TOLD} [[stall 1]]"}
    with web.stream("POST", "/api/chats/", json=asked, headers=STREAM) as stream:
        assert (stream.status_code, stream.headers["Content-Type"]) == (201, "text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == "event: created"
        chat = json.loads(next(lines).removeprefix("data: "))["id"]
        while next(lines) != "event: delta":
            pass
        with study.web() as other:
            assert said(other, chat)[0] == asked["user_input"]
        study.end(signal.SIGKILL)
    study.start()
    with study.web() as other:
        assert said(other, chat)[0] == asked["user_input"]
        assert "다랑어" in go_on(other, chat, ASKED).json()["AI"]
        assert len(said(other, chat)) in (3, 4)  # with what had been said of the first answer, if that was kept
