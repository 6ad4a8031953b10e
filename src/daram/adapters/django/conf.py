"""``DARAM = {…}`` of a Django project, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.exceptions import PermissionDenied
from django.utils.module_loading import import_string

from daram.adapters.django.databases import store_url
from daram.errors import ConfigError
from daram.knowledge.access import Reader
from daram.llm.base import ChatModel
from daram.settings import Settings, variables

_OF_A_PROJECT: Final = """
    store cache cache_key model openai_model base_url api_key local_model threads data system window context_tokens
    max_tokens temperature titles connect_timeout read_timeout wait lease redis drain
    documents embedder embedder_url embedder_key embedder_dimensions
    document_passages document_weights document_threshold chat_delayed chat_failed
""".split()  # noqa: SIM905  # shorter to read than as a list
NAMES: Final = {variables()[field].name.removeprefix("DARAM_"): variables()[field] for field in _OF_A_PROJECT}
"""What may stand in ``DARAM``, as Daram's own settings: ``STORE``, ``CACHE``, ``WINDOW``, ``OPENAI_API_KEY``, …"""

OWNER_PREFIX: Final = "user:"

OWN: Final = ("DATABASE", "OWNER", "GROUPS")
"""What may stand there beside them: an alias of ``DATABASES``, whose a user's conversations are, and what groups the
owner of conversations is in."""


def given() -> Mapping[str, Any]:
    """``settings.DARAM``; nothing where the project has none. Raises ``ConfigError`` for what may not stand there."""
    found = getattr(django_settings, "DARAM", {})
    if not isinstance(found, Mapping):
        raise ConfigError(f"DARAM must be a dictionary, not {type(found).__name__}")
    if unknown := [str(name) for name in found if name not in NAMES and name not in OWN]:
        raise ConfigError(f"DARAM has no setting {', '.join(sorted(unknown))}; there are: {', '.join([*NAMES, *OWN])}")
    if found.get("STORE") and found.get("DATABASE"):
        raise ConfigError('DARAM has both "STORE" and "DATABASE"; say one of them')
    return found


def settings() -> Settings:
    """Daram's settings of this project: from ``DARAM`` alone, not from the environment. Raises ``ConfigError``."""
    found = given()
    environment = {}
    for name, variable in NAMES.items():
        value = found.get(name)
        if value is None or (name == "MODEL" and model_maker() is not None):
            continue
        environment[variable.name] = text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        try:
            Settings.from_env({variable.name: text})
        except ConfigError as error:
            raise ConfigError(f'DARAM["{name}"]: {str(error).partition(": ")[2]}') from None
    if not found.get("STORE"):
        environment["DARAM_STORE"] = store_url(found.get("DATABASE") or "default")
    return Settings.from_env(environment)


def model_maker() -> Callable[[], ChatModel] | None:
    """What makes the model, where ``MODEL`` is a function or the dotted path of one. Raises ``ConfigError``."""
    said = given().get("MODEL")
    if said is None or (isinstance(said, str) and ("." not in said or ":" in said)):
        return None
    maker: Callable[[], ChatModel] = imported("MODEL", said)
    return maker


def imported(name: str, said: object) -> Callable[..., Any]:
    """A function of the project, given as it is or by its dotted path. Raises ``ConfigError``."""
    if isinstance(said, str):
        try:
            said = import_string(said)
        except ImportError as error:
            raise ConfigError(f'DARAM["{name}"]: {error}') from error
    if not callable(said):
        raise ConfigError(f'DARAM["{name}"]: must be a function or the dotted path of one, not {said!r}')
    return said


def owner_of(user: Any) -> str:
    """Whose a user's conversations are in the store: ``DARAM["OWNER"](user)``, or ``user:`` and the primary key.

    Raises ``PermissionDenied`` for somebody who is not logged in: everybody would share one owner.
    """
    if user is None or user.pk is None:
        raise PermissionDenied("Daram keeps conversations by owner, and nobody is logged in")
    said = given().get("OWNER")
    return f"{OWNER_PREFIX}{user.pk}" if said is None else str(imported("OWNER", said)(user))


def reader_of(user: Any) -> Reader:
    """A user as one who asks for documents: those of ``owner_of(user)``, of their groups, and the official ones, which
    staff may change. Raises ``PermissionDenied`` for somebody who is not logged in.
    """
    owner = owner_of(user)
    tell = groups_teller()
    if tell is not None:
        groups = tell(owner)
    else:
        found = getattr(user, "groups", None)  # a user model need not have any
        groups = [] if found is None else found.order_by("name").values_list("name", flat=True)
    return Reader(owner, tuple(groups), bool(getattr(user, "is_staff", False)))


def groups_teller() -> Callable[[str], Sequence[str]] | None:
    """``DARAM["GROUPS"]``: what tells the names of an owner's groups anew at each turn. Raises ``ConfigError``."""
    said = given().get("GROUPS")
    return None if said is None else imported("GROUPS", said)
