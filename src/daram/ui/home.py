"""The page's own directory, and Chainlit brought to use it: its settings, its words, its secret, its pictures.

Chainlit reads its directory, its ``config.toml`` and its environment once, when it is imported. So all of that is
written before, anew at every start: nothing of it is for the user to edit, and nothing lands where the user stands.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from daram.errors import ConfigError, MissingExtra
from daram.ui.strings import CHROME

NAME = "Daram"
_CONFIG = """\
# Written by Daram at every start: changes made here are lost.
[project]
session_timeout = 3600
user_session_timeout = 31536000
allow_origins = []

[features]
unsafe_allow_html = false
# "$5 and $10" is not mathematics.
latex = false
# What the user typed is shown as it was typed.
user_message_markdown = false
edit_message = true
# What was said before stays in sight.
user_message_autoscroll = false

[features.spontaneous_file_upload]
enabled = true
# What can be read is for Daram to say: browsers do not know the kinds of all files.
accept = ["*/*"]
max_files = 10
max_size_mb = {megabytes}

[features.mcp]
enabled = false

[UI]
name = "Daram"
description = "A chat that remembers"
default_theme = "light"
default_sidebar_state = "open"
# Nothing is lost by beginning a new conversation.
confirm_new_chat = false
cot = "hidden"
custom_css = "/public/daram.css"
custom_js = "/public/daram.js"
custom_meta_url = "/chat/"
custom_meta_image_url = "/chat/public/squirrel.svg"

[[UI.header_links]]
name = "Account"
display_name = ""
icon_url = "/chat/public/account.svg"
url = "/account/"
target = "_self"

[meta]
generated_by = "2.12.0"
"""
_FILES = {
    "daram.css": ("daram.css",),
    "daram.js": ("daram.js",),
    "theme.json": ("theme.json",),
    "account.svg": ("account.svg",),
    "squirrel.svg": ("squirrel.svg", "favicon.svg", "logo_light.svg", "logo_dark.svg", "avatars/daram.svg"),
}
# What would make Chainlit import or call something else than us.
_FOREIGN = ("SLACK_", "TEAMS_", "DISCORD_", "OAUTH_", "LITERAL_", "DATABASE_URL", "CHAINLIT_")


def load(directory: Path, limit: int = 100_000_000) -> ModuleType:
    """Write ``directory`` (made where there is none) and import Chainlit's server on it.

    ``limit``: the bytes that a file may have.

    Raises ``MissingExtra`` without Chainlit, ``ConfigError`` where Chainlit runs on another directory already: it can
    serve one application per process.
    """
    package = _package()
    directory = directory.absolute()
    loaded = sys.modules.get("chainlit.config")
    if loaded is not None and Path(loaded.APP_ROOT) != directory:
        raise ConfigError(
            f"Chainlit already runs on {loaded.APP_ROOT} in this process, so the page cannot use {directory}; "
            "start it in a process of its own"
        )
    _write_all(directory, package, limit)
    if loaded is None:
        with _environment(directory):
            importlib.import_module("chainlit")
            importlib.import_module("chainlit.server")
    # They warn of every language without words, and of every tab that was closed in the middle of a request.
    logging.getLogger("engineio").setLevel(logging.CRITICAL)
    logging.getLogger("chainlit").setLevel(logging.ERROR)
    return sys.modules["chainlit.server"]


def _package() -> Path:
    spec = importlib.util.find_spec("chainlit")
    if spec is None or spec.origin is None:
        raise MissingExtra("the chat page", "serve")
    return Path(spec.origin).parent


def _write_all(directory: Path, package: Path, limit: int) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(directory / ".chainlit" / "config.toml", _CONFIG.format(megabytes=-(-limit // 1_000_000)).encode())
    for source in sorted((package / "translations").glob("*.json")):
        words = json.loads(source.read_text(encoding="utf-8"))
        for key, text in CHROME.get(source.stem, {}).items():
            _set(words, key.split("."), text)
        names = (source.name, "ko-KR.json") if source.stem == "ko" else (source.name,)
        for name in names:
            _write(directory / ".chainlit" / "translations" / name, json.dumps(words, ensure_ascii=False).encode())
    for source_name, targets in _FILES.items():
        content = (files("daram.ui") / "static" / source_name).read_bytes()
        for target in targets:
            _write(directory / "public" / target, content)


def _set(words: dict[str, Any], path: list[str], text: str) -> None:
    for step in path[:-1]:
        words = words.setdefault(step, {})
    words[path[-1]] = text


def _write(path: Path, content: bytes) -> None:
    # Another Daram may be serving from the same directory: it must never find half a file.
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_bytes(content)
    temporary.replace(path)


@contextmanager
def _environment(directory: Path) -> Iterator[None]:
    """The environment that Chainlit is imported with; what it reads later too stays set afterwards."""
    hidden = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith(_FOREIGN)}
    secret = _secret(directory / "auth-secret")
    os.environ |= {
        "CHAINLIT_APP_ROOT": str(directory),
        "CHAINLIT_AUTH_SECRET": secret,
        # Cookies do not know ports: two Darams on one machine must not sign each other out.
        "CHAINLIT_AUTH_COOKIE_NAME": "daram_" + sha256(secret.encode()).hexdigest()[:12],
        "CHAINLIT_COOKIE_SAMESITE": "strict",
        # Chainlit would read a .env of the directory where the user stands.
        "CHAINLIT_ENV_FILE": str(directory / "no.env"),
        # A library that Chainlit brings would count its users.
        "TRACELOOP_TELEMETRY": "false",
    }
    try:
        yield
    finally:
        os.environ |= {key: value for key, value in hidden.items() if not key.startswith("CHAINLIT_")}


def _secret(path: Path) -> str:
    """The key that signs the session cookie: drawn once, readable by its owner only."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48))
        try:
            os.link(temporary, path)  # appears as a whole, and never over one that another start has drawn meanwhile
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_text(encoding="ascii").strip()
