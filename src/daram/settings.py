"""The table of all settings: what each is for, what it may be, what it is where nobody set it.

``Settings`` holds their checked values; the reference page and the flags of the command line are made from the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from daram.errors import ConfigError
from daram.kinds import (
    SWITCH,
    TEXT,
    Kind,
    Variable,
    as_text,
    data_directory,
    matching,
    numbers,
    read_database,
    read_endpoint,
    read_hosts,
    read_issuer,
    read_key,
    read_networks,
    read_origin,
    read_origins,
    read_path,
    read_printable,
    read_weights,
    seconds,
    setting,
    whole,
)

OPENAI_URL: Final = "https://api.openai.com/v1"
# Up to the last "@" in front of the path, as where URLs are read; or as an option, as libpq and Redis take it.
_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/\s]+@|([?&]password=)[^&\s]+")


# --- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """All settings, checked. An empty environment variable counts as not set; a flag goes before the environment."""

    data: Path = setting(
        "DARAM_DATA",
        Kind(read_path, "a directory; made where there is none, readable by its owner only"),
        "The data directory: the database, the weights of local models.",
        default=data_directory,
        shown="`~/.local/share/daram` (Linux), `~/Library/Application Support/daram` (macOS), "
        "`%LOCALAPPDATA%\\daram` (Windows)",
        flag="--data",
    )
    store: str = setting(
        "DARAM_STORE",
        Kind(
            read_printable,
            "`sqlite:///relative/file.db`, `sqlite:////absolute/file.db`, `postgresql://USER:PASSWORD@HOST/DATABASE`, "
            "`redis://HOST:6379/0`, `memory://` (kept until the program ends)",
        ),
        "Where conversations are kept.",
        default="",
        shown="`daram.db` in the data directory",
        flag="--store",
    )
    documents: str | None = setting(
        "DARAM_DOCUMENTS",
        Kind(read_printable, "`sqlite:////absolute/file.db`, `postgresql://USER:PASSWORD@HOST/DATABASE`"),
        "Where documents are kept, for a store that does not keep them (Redis).",
        shown="the store",
    )
    cache: str | None = setting(
        "DARAM_CACHE",
        Kind(read_printable, "`memory://`, `redis://HOST:6379/0`, `django:ALIAS`; several with a comma between"),
        "A cache in front of the store, where the ends of conversations are kept for turns.",
        shown="none",
    )
    cache_key: str | None = setting(
        "DARAM_CACHE_KEY",
        Kind(read_key, "text of at most 64 bytes in UTF-8"),
        "A secret that keeps others from writing to the cache.",
        shown="none",
        secret=True,
    )
    owner: str = setting(
        "DARAM_OWNER",
        Kind(read_printable, "printable text"),
        "Whose conversations the terminal and the page show.",
        default="local",
        flag="--owner",
    )
    model: str = setting(
        "DARAM_MODEL",
        matching(r"auto|local|openai:\S+", "`auto`, `local`, `openai:NAME`"),
        "The language model. `auto`: the endpoint where one is set (`OPENAI_MODEL` and one of `OPENAI_BASE_URL`, "
        "`OPENAI_API_KEY`), else the local one.",
        default="auto",
        flag="--model",
    )
    openai_model: str | None = setting(
        "OPENAI_MODEL", TEXT, "The name of the model at the endpoint, for `auto`.", shown="none"
    )
    base_url: str | None = setting(
        "OPENAI_BASE_URL",
        Kind(read_endpoint, "an `http://` or `https://` URL"),
        "The OpenAI-compatible endpoint.",
        shown=f"`{OPENAI_URL}`",
    )
    api_key: str | None = setting("OPENAI_API_KEY", TEXT, "The key for that endpoint.", shown="none", secret=True)
    local_model: Path | None = setting(
        "DARAM_LOCAL_MODEL",
        Kind(read_path, "a GGUF file"),
        "A model file of your own instead of the weights that `daram model get` fetches.",
        shown="none",
    )
    threads: int | None = setting(
        "DARAM_THREADS",
        whole(1, 1024),
        "Threads that the local model generates with.",
        shown="one fewer than there are processors",
    )
    system: str | None = setting("DARAM_SYSTEM", TEXT, "The system prompt: how the model should behave.", shown="none")
    window: int = setting(
        "DARAM_WINDOW", whole(1, 1000), "How many of the last messages go to the model, if they fit.", default=20
    )
    context_tokens: int | None = setting(
        "DARAM_CONTEXT_TOKENS",
        whole(256, 10_000_000, "tokens,"),
        "The length of the model's context, answer included.",
        shown="what the model says of itself",
    )
    max_tokens: int | None = setting(
        "DARAM_MAX_TOKENS", whole(1, 1_000_000, "tokens,"), "The longest answer.", shown="left to the model"
    )
    temperature: float | None = setting(
        "DARAM_TEMPERATURE",
        numbers(float, 0, 2, "a number"),
        "How freely the model chooses its words; 0 is greedy.",
        shown="left to the model",
    )
    titles: bool = setting(
        "DARAM_TITLES", SWITCH, "Whether the model names a conversation after its first turn.", default=True
    )
    connect_timeout: float = setting(
        "DARAM_CONNECT_TIMEOUT", seconds(0.1, 600), "How long a connection to the endpoint may take.", default=5.0
    )
    read_timeout: float = setting(
        "DARAM_READ_TIMEOUT",
        seconds(0.1, 3600),
        "How long the endpoint may say nothing, before and within an answer.",
        default=60.0,
    )
    embedder: str = setting(
        "DARAM_EMBEDDER",
        matching(r"auto|local|off|openai:\S+", "`auto`, `local`, `off`, `openai:NAME`"),
        "The embedding model for searching documents by meaning. `auto`: the local one where the extra `documents` is "
        "installed. Without one they are searched by words. Another one embeds them anew, in the background.",
        default="auto",
    )
    embedder_url: str | None = setting(
        "DARAM_EMBEDDER_URL",
        Kind(read_endpoint, "an `http://` or `https://` URL"),
        "The OpenAI-compatible endpoint of the embedding model.",
        shown="`OPENAI_BASE_URL`",
    )
    embedder_key: str | None = setting(
        "DARAM_EMBEDDER_KEY", TEXT, "The key for that endpoint.", shown="`OPENAI_API_KEY`", secret=True
    )
    embedder_dimensions: int | None = setting(
        "DARAM_EMBEDDER_DIMENSIONS",
        whole(8, 16_384, "numbers,"),
        "The length of the vectors that the embedding model at an endpoint makes.",
        shown="what is known of the common models",
    )
    document_passages: int = setting(
        "DARAM_DOCUMENT_PASSAGES",
        whole(1, 20),
        "How many passages of documents an answer is given at most.",
        default=5,
    )
    document_weights: str = setting(
        "DARAM_DOCUMENT_WEIGHTS",
        Kind(read_weights, "`default`, `tutorial`, `WORDS,VECTORS` (as `0.9,0.1`)"),
        "How much the search by words and the search by meaning count. `tutorial`: 0.3 and 0.7, and each question "
        "asked in three ways.",
        default="default",
    )
    document_threshold: float = setting(
        "DARAM_DOCUMENT_THRESHOLD",
        numbers(float, 0, 1, "a number"),
        "The score from which a passage counts as bearing on a question; where none reaches it, the documents do not "
        "say.",
        default=0.5,
    )
    wait: float = setting(
        "DARAM_WAIT",
        seconds(0, 3600),
        "How long a turn waits while another answer is being made in its conversation.",
        default=30.0,
    )
    lease: float = setting(
        "DARAM_LEASE",
        seconds(5, 3600),
        "After how long without a sign of life an answer counts as abandoned.",
        default=30.0,
    )
    host: str = setting(
        "DARAM_HOST",
        Kind(read_printable, "an address of this machine; `0.0.0.0` or `::` for all of them"),
        "The address that `daram serve` listens on. One that others can reach needs accounts and "
        "`DARAM_ALLOWED_HOSTS`.",
        default="127.0.0.1",
        flag="--host",
    )
    port: int = setting(
        "DARAM_PORT",
        whole(0, 65535),
        "The port that `daram serve` listens on; 0 takes a free one.",
        default=8000,
        flag="--port",
    )
    accounts: str | None = setting(
        "DATABASE_URL",
        Kind(read_database, "`postgresql://USER:PASSWORD@HOST/DATABASE`, `sqlite:////absolute/file.sqlite3`"),
        "Where the accounts of `daram serve` are kept: users, API keys, sessions.",
        shown="`accounts.sqlite3` in the data directory",
    )
    secret_key: str | None = setting(
        "DARAM_SECRET_KEY",
        matching(r"\S{50,}", "at least 50 characters without blanks"),
        "What signs sessions and forms. Several machines that serve the same users need the same one.",
        shown="the file `secret-key` in the data directory, made at the first start",
        secret=True,
    )
    oidc_url: str | None = setting(
        "DARAM_OIDC_URL",
        Kind(read_issuer, "an `https://` URL; `http://` on this machine only"),
        "The issuer of an OpenID Connect provider that people log in with.",
        shown="none",
    )
    oidc_client: str | None = setting("DARAM_OIDC_CLIENT", TEXT, "The client's id at that provider.", shown="none")
    oidc_secret: str | None = setting(
        "DARAM_OIDC_SECRET", TEXT, "The client's secret at that provider.", shown="none", secret=True
    )
    oidc_name: str = setting(
        "DARAM_OIDC_NAME", Kind(read_printable, "printable text"), "What the login page calls it.", default="SSO"
    )
    oidc_signup: bool = setting(
        "DARAM_OIDC_SIGNUP",
        SWITCH,
        "Whether everybody whom the provider knows gets an account. Otherwise those whose verified e-mail address "
        "a user has.",
        default=False,
    )
    public_url: str | None = setting(
        "DARAM_PUBLIC_URL",
        Kind(read_origin, "an `http://` or `https://` URL without a path"),
        "How browsers reach the service, where that is not the address it listens on: behind a balancer or a proxy. "
        "With `https` cookies are sent over TLS only.",
        shown="the address that it listens on",
    )
    allowed_hosts: tuple[str, ...] = setting(
        "DARAM_ALLOWED_HOSTS",
        Kind(read_hosts, "host names or addresses with a comma between; `.example.com` with its subdomains"),
        "Names beside that of `DARAM_PUBLIC_URL` and those of this machine under which the service may be asked.",
        default=(),
        shown="none",
    )
    proxies: tuple[str, ...] = setting(
        "DARAM_PROXIES",
        Kind(read_networks, "addresses or networks (`10.0.0.0/8`) with a comma between"),
        "The proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.",
        default=(),
        shown="none",
    )
    cors_origins: tuple[str, ...] = setting(
        "DARAM_CORS_ORIGINS",
        Kind(read_origins, "origins like `https://app.example.org` with a comma between"),
        "The sites whose pages may use the API under `/v1` from a browser.",
        default=(),
        shown="none",
    )
    rate_limit: int = setting(
        "DARAM_RATE_LIMIT",
        whole(0, 1_000_000),
        "How many requests to the API a user may make in a minute; 0 is no limit.",
        default=600,
    )
    stream_limit: int = setting(
        "DARAM_STREAM_LIMIT",
        whole(0, 1_000_000),
        "How many requests to the API a user may have running at once; 0 is no limit. With `DARAM_REDIS` all processes "
        "count both limits together, without it each for itself.",
        default=64,
    )
    body_limit: int = setting(
        "DARAM_BODY_LIMIT",
        whole(1024, 1 << 30, "bytes,"),
        "The largest body of a request.",
        default=8 << 20,
    )
    upload_limit: int = setting(
        "DARAM_UPLOAD_LIMIT",
        whole(1024, 1 << 30, "bytes,"),
        "The largest request that brings a file, from whoever has a key or a login; it is kept on the disk meanwhile.",
        default=512 << 20,
    )
    body_timeout: float = setting(
        "DARAM_BODY_TIMEOUT",
        seconds(0.1, 3600),
        "How long the head of a request, and then its body, may take to arrive; what is more than `DARAM_BODY_LIMIT` "
        "has a second for each 64 KiB besides.",
        default=30.0,
    )
    send_timeout: float = setting(
        "DARAM_SEND_TIMEOUT",
        seconds(0.1, 3600),
        "How long a client may take no more of what it is sent before the connection is closed.",
        default=60.0,
    )
    chat_delayed: float = setting(
        "DARAM_CHAT_DELAYED",
        seconds(0, 3600),
        "After how long without a word to its client a chat under `/api/chats/` is said to be delayed; 0 is never.",
        default=10.0,
    )
    chat_failed: float = setting(
        "DARAM_CHAT_FAILED",
        seconds(0, 3600),
        "After how long without a word to its client an answer under `/api/chats/` is given up as failed; 0 is never. "
        "A client without a stream hears nothing until the answer is whole.",
        default=30.0,
    )
    metrics: str = setting(
        "DARAM_METRICS",
        matching(r"local|open|off", "`local`, `open`, `off`"),
        "Who may read `/metrics`: this machine and keys with the scope `admin`, everybody who reaches it, nobody.",
        default="local",
    )
    log: str = setting(
        "DARAM_LOG",
        matching(r"off|text|json", "`off`, `text`, `json`"),
        "How each request is logged, on stderr: not at all, for people, or as lines of JSON.",
        default="off",
    )
    redis: str | None = setting(
        "DARAM_REDIS",
        Kind(read_printable, "`redis://HOST:6379/0`, `redis+cluster://HOST:6379`"),
        "Where the events of running answers are told, so that every process can serve the stream of every answer, and "
        "where the requests of users are counted.",
        shown="none: in the memory of the process",
    )
    drain: float = setting(
        "DARAM_DRAIN",
        seconds(0, 3600),
        "How long running answers may go on when the server is told to end; then they are kept as incomplete.",
        default=10.0,
    )
    debug: bool = setting(
        "DARAM_DEBUG", SWITCH, "Whether an error of the terminal shows where in the code it arose.", default=False
    )

    def __post_init__(self) -> None:
        if not self.store:
            # Characters that mean something in a URL may stand in a path.
            object.__setattr__(self, "store", "sqlite:///" + quote(str(self.data / "daram.db"), safe="/:\\"))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **flags: object) -> Self:
        """The settings from flags (by field name; None is "not given") and environment.

        Raises ``ConfigError`` that names the variable or flag and what is allowed.
        """
        environ = os.environ if environ is None else environ
        table = variables()
        unknown = flags.keys() - table.keys()
        if unknown:
            raise ConfigError(f"no such setting: {', '.join(sorted(unknown))}; there are: {', '.join(table)}")
        values = {}
        for key, variable in table.items():
            if flags.get(key) is not None:
                values[key] = _read(variable, variable.flag or key, str(flags[key]))
            elif text := environ.get(variable.name):
                values[key] = _read(variable, variable.name, text)
        return cls(**values)

    def with_flags(self, **flags: object) -> Self:
        """These settings with what flags say instead, as in ``from_env``; the environment is not asked."""
        given = {name: value for name, value in flags.items() if value is not None}
        changed = self.from_env({}, **given)
        return replace(self, **{name: getattr(changed, name) for name in given})

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={text!r}' for name, text in self.shown().items())})"

    @property
    def endpoint_model(self) -> str | None:
        """The name of the model at the OpenAI-compatible endpoint, or None where the model is the local one."""
        if self.model.startswith("openai:"):
            return self.model.removeprefix("openai:")
        return self.openai_model if self.model == "auto" and (self.base_url or self.api_key) else None

    def shown(self) -> dict[str, str]:
        """Every setting by its variable's name, as anybody may see it: secrets and passwords masked, "" if not set."""
        shown = {}
        for key, variable in variables().items():
            value = getattr(self, key)
            text = "" if value is None else mask(as_text(value))
            shown[variable.name] = "***" if variable.secret and text else text
        return shown


def variables() -> dict[str, Variable]:
    """The table of all settings, by field name, in the order in which they are documented."""
    return {item.name: item.metadata["variable"] for item in fields(Settings)}


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """The variables that look like settings of Daram and are none: mistyped, most likely."""
    known = {variable.name for variable in variables().values()}
    return sorted(name for name in environ if name.startswith("DARAM_") and name not in known)


def mask(text: str) -> str:
    """The text with the passwords of URLs in it masked."""
    return _PASSWORD.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)


def _read(variable: Variable, source: str, text: str) -> Any:
    try:
        if "\0" in text:
            raise ValueError(text)
        return variable.kind.read(text)
    except ValueError as error:
        value = "the value" if variable.secret else repr(mask(text))
        allowed = variable.kind.allowed.replace("`", "")
        raise ConfigError(f"{source}: {value} cannot be used; allowed: {allowed}") from error
