"""The table of all settings: what each is for, what it may be, what it is where nobody set it.

``Settings`` holds their checked values; the reference page and the flags of the command line are made from the table.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote, urlsplit

from daram.errors import ConfigError

OPENAI_URL: Final = "https://api.openai.com/v1"
# Up to the last "@" in front of the path, as where URLs are read; or as an option, as libpq and Redis take it.
_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/\s]+@|([?&]password=)[^&\s]+")


class Kind(NamedTuple):
    """What a value may be: ``read`` takes its text and raises ValueError where it is not what ``allowed`` says."""

    read: Callable[[str], Any]
    allowed: str


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One setting: ``name`` of the environment variable, ``flag`` of the command line (empty: none), and its words."""

    name: str
    kind: Kind
    about: str
    default: str
    flag: str
    secret: bool


# --- kinds ----------------------------------------------------------------------------------------------------------


def _numbers(read: Callable[[str], float], low: float, high: float, what: str) -> Kind:
    def checked(text: str) -> float:
        number = read(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return Kind(checked, f"{what} from {low:,} to {high:,}")


def _whole(low: int, high: int, what: str = "a whole number") -> Kind:
    return _numbers(int, low, high, what)


def _seconds(low: float, high: float) -> Kind:
    return _numbers(float, low, high, "seconds,")


def _matching(pattern: str, allowed: str) -> Kind:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    return Kind(read, allowed)


def _read_path(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # "~somebody", whom the system does not know
        raise ValueError(text) from error


def _read_printable(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(text)
    return text


def _read_key(text: str) -> str:
    if len(text.encode()) > 64:
        raise ValueError(text)
    return text


def _read_endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # raises for what is no port
        raise ValueError(text)
    return text.rstrip("/")


def _read_switch(text: str) -> bool:
    if text.lower() in ("on", "true", "yes", "1"):
        return True
    if text.lower() in ("off", "false", "no", "0"):
        return False
    raise ValueError(text)


_TEXT = Kind(str, "text")
_SWITCH = Kind(_read_switch, "`on`, `off`")


def _data_directory() -> Path:
    """Where the system keeps a user's data; the same for every clone, so that the conversations are found again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base).absolute() / "daram"


# --- the table ------------------------------------------------------------------------------------------------------


def _setting(
    name: str,
    kind: Kind,
    about: str,
    *,
    default: Any = None,
    shown: str | None = None,
    flag: str = "",
    secret: bool = False,
) -> Any:
    """A field of ``Settings``. ``default`` may be a function; ``shown`` is how the default reads in the table."""
    words = f"`{_as_text(default)}`" if shown is None else shown
    metadata = {"variable": Variable(name=name, kind=kind, about=about, default=words, flag=flag, secret=secret)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """All settings, checked. An empty environment variable counts as not set; a flag goes before the environment."""

    data: Path = _setting(
        "DARAM_DATA",
        Kind(_read_path, "a directory; made where there is none, readable by its owner only"),
        "The data directory: the database, the weights of local models.",
        default=_data_directory,
        shown="`~/.local/share/daram` (Linux), `~/Library/Application Support/daram` (macOS), "
        "`%LOCALAPPDATA%\\daram` (Windows)",
        flag="--data",
    )
    store: str = _setting(
        "DARAM_STORE",
        Kind(
            _read_printable,
            "`sqlite:///relative/file.db`, `sqlite:////absolute/file.db`, `postgresql://USER:PASSWORD@HOST/DATABASE`, "
            "`redis://HOST:6379/0`, `memory://` (kept until the program ends)",
        ),
        "Where conversations are kept.",
        default="",
        shown="`daram.db` in the data directory",
        flag="--store",
    )
    cache: str | None = _setting(
        "DARAM_CACHE",
        Kind(_read_printable, "`memory://`, `redis://HOST:6379/0`, `django:ALIAS`; several with a comma between"),
        "A cache in front of the store, where the ends of conversations are kept for turns.",
        shown="none",
    )
    cache_key: str | None = _setting(
        "DARAM_CACHE_KEY",
        Kind(_read_key, "text of at most 64 bytes in UTF-8"),
        "A secret that keeps others from writing to the cache.",
        shown="none",
        secret=True,
    )
    owner: str = _setting(
        "DARAM_OWNER",
        Kind(_read_printable, "printable text"),
        "Whose conversations the terminal and the page show.",
        default="local",
        flag="--owner",
    )
    model: str = _setting(
        "DARAM_MODEL",
        _matching(r"auto|local|openai:\S+", "`auto`, `local`, `openai:NAME`"),
        "The language model. `auto`: the endpoint where one is set (`OPENAI_MODEL` and one of `OPENAI_BASE_URL`, "
        "`OPENAI_API_KEY`), else the local one.",
        default="auto",
        flag="--model",
    )
    openai_model: str | None = _setting(
        "OPENAI_MODEL", _TEXT, "The name of the model at the endpoint, for `auto`.", shown="none"
    )
    base_url: str | None = _setting(
        "OPENAI_BASE_URL",
        Kind(_read_endpoint, "an `http://` or `https://` URL"),
        "The OpenAI-compatible endpoint.",
        shown=f"`{OPENAI_URL}`",
    )
    api_key: str | None = _setting("OPENAI_API_KEY", _TEXT, "The key for that endpoint.", shown="none", secret=True)
    local_model: Path | None = _setting(
        "DARAM_LOCAL_MODEL",
        Kind(_read_path, "a GGUF file"),
        "A model file of your own instead of the weights that `daram model get` fetches.",
        shown="none",
    )
    threads: int | None = _setting(
        "DARAM_THREADS",
        _whole(1, 1024),
        "Threads that the local model generates with.",
        shown="one fewer than there are processors",
    )
    system: str | None = _setting(
        "DARAM_SYSTEM", _TEXT, "The system prompt: how the model should behave.", shown="none"
    )
    window: int = _setting(
        "DARAM_WINDOW", _whole(1, 1000), "How many of the last messages go to the model, if they fit.", default=20
    )
    context_tokens: int | None = _setting(
        "DARAM_CONTEXT_TOKENS",
        _whole(256, 10_000_000, "tokens,"),
        "The length of the model's context, answer included.",
        shown="what the model says of itself",
    )
    max_tokens: int | None = _setting(
        "DARAM_MAX_TOKENS", _whole(1, 1_000_000, "tokens,"), "The longest answer.", shown="left to the model"
    )
    temperature: float | None = _setting(
        "DARAM_TEMPERATURE",
        _numbers(float, 0, 2, "a number"),
        "How freely the model chooses its words; 0 is greedy.",
        shown="left to the model",
    )
    titles: bool = _setting(
        "DARAM_TITLES", _SWITCH, "Whether the model names a conversation after its first turn.", default=True
    )
    connect_timeout: float = _setting(
        "DARAM_CONNECT_TIMEOUT", _seconds(0.1, 600), "How long a connection to the endpoint may take.", default=5.0
    )
    read_timeout: float = _setting(
        "DARAM_READ_TIMEOUT",
        _seconds(0.1, 3600),
        "How long the endpoint may say nothing, before and within an answer.",
        default=60.0,
    )
    wait: float = _setting(
        "DARAM_WAIT",
        _seconds(0, 3600),
        "How long a turn waits while another answer is being made in its conversation.",
        default=30.0,
    )
    lease: float = _setting(
        "DARAM_LEASE",
        _seconds(5, 3600),
        "After how long without a sign of life an answer counts as abandoned.",
        default=30.0,
    )
    host: str = _setting(
        "DARAM_HOST",
        Kind(_read_printable, "`127.0.0.1`, `::1`, `localhost`"),
        "The address that `daram serve` listens on.",
        default="127.0.0.1",
        flag="--host",
    )
    port: int = _setting(
        "DARAM_PORT",
        _whole(0, 65535),
        "The port that `daram serve` listens on; 0 takes a free one.",
        default=8000,
        flag="--port",
    )
    drain: float = _setting(
        "DARAM_DRAIN",
        _seconds(0, 3600),
        "How long running answers may go on when the server is told to end; then they are kept as incomplete.",
        default=10.0,
    )
    debug: bool = _setting(
        "DARAM_DEBUG", _SWITCH, "Whether an error of the terminal shows where in the code it arose.", default=False
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
            text = "" if value is None else mask(_as_text(value))
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
