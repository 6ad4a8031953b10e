"""The settings: every wrong value is named, secrets stay secret, and what is missing is said."""

from __future__ import annotations

import stat
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import daram
from daram.config import make_model, open_chatbot, open_memory, prepare_data
from daram.errors import ConfigError, ModelUnavailable
from daram.llm.absent import NoModel
from daram.settings import Settings, mask, unknown_variables, variables
from daram.testing.model_server import ScriptedModelServer

WRONG = [
    ("DARAM_DATA", "~nobody-has-this-name/x"),
    ("DARAM_DATA", "a\0b"),
    ("DARAM_STORE", "sqlite:///a\nb.db"),
    ("DARAM_DOCUMENTS", "\x1b"),
    ("DARAM_CACHE", "\x1b"),
    ("DARAM_CACHE_KEY", "다" * 22),
    ("DARAM_OWNER", "a\nb"),
    ("DARAM_MODEL", "gpt"),
    ("DARAM_MODEL", "openai:"),
    ("DARAM_MODEL", "Local"),
    ("OPENAI_BASE_URL", "localhost:8080"),
    ("OPENAI_BASE_URL", "ftp://host/v1"),
    ("OPENAI_BASE_URL", "http://"),
    ("OPENAI_BASE_URL", "http://127.0.0.1:99999/v1"),
    ("OPENAI_BASE_URL", "http://127.0.0.1:port/v1"),
    ("OPENAI_API_KEY", "key\0"),
    ("DARAM_LOCAL_MODEL", "\0"),
    ("DARAM_THREADS", "0"),
    ("DARAM_WINDOW", "0"),
    ("DARAM_WINDOW", "2.5"),
    ("DARAM_WINDOW", "1001"),
    ("DARAM_CONTEXT_TOKENS", "255"),
    ("DARAM_MAX_TOKENS", "-1"),
    ("DARAM_TEMPERATURE", "nan"),
    ("DARAM_TEMPERATURE", "2.1"),
    ("DARAM_TITLES", "maybe"),
    ("DARAM_CONNECT_TIMEOUT", "0"),
    ("DARAM_READ_TIMEOUT", "inf"),
    ("DARAM_EMBEDDER", "openai:"),
    ("DARAM_EMBEDDER_URL", "localhost"),
    ("DARAM_EMBEDDER_DIMENSIONS", "4"),
    ("DARAM_DOCUMENT_PASSAGES", "0"),
    ("DARAM_DOCUMENT_WEIGHTS", "0,0"),
    ("DARAM_DOCUMENT_WEIGHTS", "0.5"),
    ("DARAM_DOCUMENT_WEIGHTS", "nan,1"),
    ("DARAM_DOCUMENT_THRESHOLD", "1.5"),
    ("DARAM_WAIT", "-1"),
    ("DARAM_LEASE", "1"),
    ("DARAM_HOST", "a\tb"),
    ("DARAM_PORT", "65536"),
    ("DARAM_PORT", "http"),
    ("DATABASE_URL", "mysql://host/accounts"),
    ("DATABASE_URL", "postgresql://host"),
    ("DARAM_SECRET_KEY", "too-short"),
    ("DARAM_OIDC_URL", "http://sso.example.org"),
    ("DARAM_OIDC_URL", "sso.example.org"),
    ("DARAM_OIDC_NAME", "a\tb"),
    ("DARAM_OIDC_SIGNUP", "2"),
    ("DARAM_PUBLIC_URL", "https://example.org/path"),
    ("DARAM_PUBLIC_URL", "example.org"),
    ("DARAM_ALLOWED_HOSTS", "*"),
    ("DARAM_ALLOWED_HOSTS", "https://example.org"),
    ("DARAM_ALLOWED_HOSTS", ","),
    ("DARAM_PROXIES", "10.0.0.0/99"),
    ("DARAM_CORS_ORIGINS", "*"),
    ("DARAM_CORS_ORIGINS", "https://example.org/path"),
    ("DARAM_RATE_LIMIT", "-1"),
    ("DARAM_STREAM_LIMIT", "many"),
    ("DARAM_BODY_LIMIT", "10"),
    ("DARAM_UPLOAD_LIMIT", "10"),
    ("DARAM_BODY_TIMEOUT", "0"),
    ("DARAM_SEND_TIMEOUT", "0"),
    ("DARAM_CHAT_DELAYED", "-1"),
    ("DARAM_CHAT_FAILED", "soon"),
    ("DARAM_METRICS", "on"),
    ("DARAM_LOG", "xml"),
    ("DARAM_REDIS", "redis://\n"),
    ("DARAM_DRAIN", "-1"),
    ("DARAM_DEBUG", "2"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({name: value})
    allowed = next(v.kind.allowed for v in variables().values() if v.name == name)
    assert str(caught.value).startswith(f"{name}: ")
    assert str(caught.value).endswith(f"allowed: {allowed.replace('`', '')}")


def test_every_setting_that_can_be_wrong_is_in_the_table_of_wrong_values() -> None:
    anything = {v.name for v in variables().values() if v.kind.allowed == "text"} - {"OPENAI_API_KEY"}
    assert {name for name, _ in WRONG} == {v.name for v in variables().values()} - anything


def test_right_values_are_read() -> None:
    settings = Settings.from_env(
        {
            "DARAM_DATA": "/somewhere/else",
            "DARAM_MODEL": "openai:gpt",
            "OPENAI_BASE_URL": "http://localhost:1/v1/",
            "DARAM_WINDOW": "7",
            "DARAM_TEMPERATURE": "0",
            "DARAM_TITLES": "OFF",
            "DARAM_READ_TIMEOUT": "1.5",
            "DARAM_OWNER": "다람",
        }
    )
    assert settings.data == Path("/somewhere/else").absolute()
    assert settings.endpoint_model == "gpt"
    assert settings.base_url == "http://localhost:1/v1"
    assert (settings.window, settings.temperature, settings.read_timeout) == (7, 0.0, 1.5)
    assert settings.titles is False
    assert settings.owner == "다람"


def test_an_empty_variable_is_not_set_and_a_flag_goes_first() -> None:
    environ = {"DARAM_PORT": "", "DARAM_MODEL": "local"}
    assert Settings.from_env(environ).port == Settings().port
    assert Settings.from_env(environ, model="openai:x", port=0, host=None) == Settings(model="openai:x", port=0)


def test_a_wrong_flag_is_named_as_the_flag() -> None:
    with pytest.raises(ConfigError, match="^--port: 'x' cannot be used"):
        Settings.from_env({}, port="x")
    with pytest.raises(ConfigError, match="no such setting: prot; there are: data, "):
        Settings.from_env({}, prot=1)


def test_secrets_and_passwords_are_shown_nowhere() -> None:
    settings = Settings.from_env(
        {
            "OPENAI_API_KEY": "hunter2",
            "DARAM_CACHE_KEY": "hunter2",
            "OPENAI_BASE_URL": "http://me:hunter2@host/v1",
            "DARAM_STORE": "postgresql://me:hunter2@host/db",
        }
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.shown())
    assert mask("a redis://:pw@h and b") == "a redis://:***@h and b"
    assert mask("postgresql://me:p@w@h/db") == "postgresql://me:***@h/db"
    assert mask("postgresql://h/db?user=me&password=p%40w&x=1") == "postgresql://h/db?user=me&password=***&x=1"
    assert mask("redis://:pw@h,redis://:pw@i") == "redis://:***@h,redis://:***@i"
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"OPENAI_BASE_URL": "ftp://me:hunter2@host"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"OPENAI_API_KEY": "hunter2\0"})
    assert "hunter2" not in str(caught.value)


def test_the_table_names_each_variable_once_and_each_field() -> None:
    table = variables()
    assert list(table) == [item.name for item in fields(Settings)]
    assert len({v.name for v in table.values()}) == len(table)
    assert all(v.about.endswith(".") and v.default and v.kind.allowed for v in table.values())


def test_mistyped_variables_are_found() -> None:
    assert unknown_variables({"DARAM_STROE": "x", "DARAM_STORE": "x", "PATH": "y"}) == ["DARAM_STROE"]


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"XDG_DATA_HOME": "/xdg"}, "/xdg/daram"),
        ("linux", {}, "/users/u/.local/share/daram"),
        ("darwin", {}, "/users/u/Library/Application Support/daram"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/daram"),
        ("win32", {}, "/users/u/AppData/Local/daram"),
    ],
)
def test_the_data_directory_is_where_the_system_keeps_a_users_data(
    monkeypatch: pytest.MonkeyPatch, platform: str, environ: dict[str, str], expected: str
) -> None:
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**environ, "HOME": "/users/u", "USERPROFILE": "/users/u"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert Settings.from_env({}).data == Path(expected).absolute()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_the_data_directory_is_its_owners_alone(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "a" / "b")
    prepare_data(settings)
    assert stat.S_IMODE(settings.data.stat().st_mode) == 0o700
    settings.data.chmod(0o750)
    prepare_data(settings)
    assert stat.S_IMODE(settings.data.stat().st_mode) == 0o750  # what the user chose since then stays


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^DARAM_DATA: the data directory .*file.*cannot be made .*; set DARAM_DATA"):
        prepare_data(Settings(data=tmp_path / "file" / "data"))


@pytest.mark.parametrize("name", ["plain", "with space", "다람 100% #1?", "a+b&c=d"])
async def test_the_database_is_in_the_data_directory_whatever_its_name(tmp_path: Path, name: str) -> None:
    settings = Settings(data=tmp_path / name)
    async with await open_memory(settings) as memory:
        await memory.create("local", title="one")
    assert (tmp_path / name / "daram.db").is_file()


@pytest.mark.parametrize("wrong", [{"store": "nosql://host"}, {"store": "sqlite://"}, {"cache": "tape://host"}])
async def test_a_store_or_cache_that_there_is_not_is_a_config_error(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="set by DARAM_STORE, DARAM_CACHE and DARAM_DOCUMENTS"):
        await open_memory(Settings(data=tmp_path, **wrong))


# --- the model ------------------------------------------------------------------------------------------------------


def test_the_endpoint_is_used_when_it_is_named() -> None:
    def endpoint(**environ: str) -> str | None:
        return Settings.from_env(environ).endpoint_model

    assert endpoint() is None
    assert endpoint(OPENAI_API_KEY="k") is None  # it names no model, and nothing is sent anywhere unasked
    assert endpoint(OPENAI_API_KEY="k", OPENAI_MODEL="m") == "m"
    assert endpoint(OPENAI_BASE_URL="http://h", OPENAI_MODEL="m") == "m"
    assert endpoint(OPENAI_API_KEY="k", OPENAI_MODEL="m", DARAM_MODEL="local") is None
    assert endpoint(DARAM_MODEL="openai:x") == "x"


async def test_the_endpoint_gets_what_the_settings_say(tmp_path: Path) -> None:
    environ = {"DARAM_MODEL": "openai:m", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "DARAM_CONTEXT_TOKENS": "5000"}
    model = make_model(Settings.from_env({**environ, "DARAM_DATA": str(tmp_path)}))
    assert (model.name, model.context_tokens) == ("m", 5000)
    await model.close()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"DARAM_MODEL": "openai:m"}, ["OPENAI_API_KEY", "OPENAI_BASE_URL"]),
        ({"DARAM_MODEL": "local"}, ["daram model get", "DARAM_MODEL=openai:NAME"]),
    ],
)
async def test_a_missing_model_says_what_to_set_or_install(
    tmp_path: Path, environ: dict[str, str], words: list[str]
) -> None:
    model = make_model(Settings.from_env({**environ, "DARAM_DATA": str(tmp_path)}))
    assert isinstance(model, NoModel)
    assert await model.ready() == model.reason
    assert all(word in model.reason for word in words)
    with pytest.raises(ModelUnavailable) as caught:
        await anext(model.stream([]))
    assert str(caught.value) == model.reason


async def test_a_model_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    model = make_model(Settings(data=tmp_path, local_model=tmp_path / "there.gguf"))
    with pytest.raises(ModelUnavailable, match="there.gguf.*DARAM_LOCAL_MODEL"):
        await anext(model.stream([daram.user("hello")]))
    await model.close()


async def test_a_missing_runtime_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    model = make_model(Settings(data=tmp_path))
    assert isinstance(model, NoModel)
    assert 'pip install "daram[local]"' in model.reason


async def test_without_a_model_a_turn_fails_honestly_and_keeps_the_message(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, model="local")
    async with open_chatbot(settings) as (memory, _, chatbot):
        with pytest.raises(ModelUnavailable, match="daram model get"):
            await chatbot.ask("local", "c", "다람쥐는 다랑어")
        assert [m.text for m in await memory.tail("local", "c") if m.role == "user"] == ["다람쥐는 다랑어"]
        assert [hit.text for hit in await memory.search("local", "다람쥐")] == ["다람쥐는 다랑어"]


async def test_the_chatbot_and_its_model_get_what_the_settings_say(tmp_path: Path) -> None:
    async with ScriptedModelServer(api_key="k", default="Yes.") as server:
        settings = Settings(
            data=tmp_path,
            model="openai:m",
            base_url=server.base_url,
            api_key="k",
            system="Be brief.",
            window=3,
            temperature=0.0,
            max_tokens=9,
            titles=False,
        )
        async with open_chatbot(settings) as (memory, model, chatbot):
            assert model.name == "m"
            for number in range(5):
                await chatbot.ask("local", "c", f"Question {number}")
            assert (await memory.get("local", "c")).title is None
    assert len(server.requests) == 5
    last = server.requests[-1]
    assert (last["model"], last["temperature"]) == ("m", 0.0)
    assert 9 in (last.get("max_tokens"), last.get("max_completion_tokens"))
    said = [message["content"] for message in last["messages"]]
    assert "Be brief." in said[0]
    assert "Question 3" in said[1]
    assert "Question 4" in said[-1]
    assert not any("Question 2" in text for text in said[1:-1])
