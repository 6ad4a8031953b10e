"""Settings -> Django's settings: the service is one Django project, configured from Daram's own table."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import sqlite3
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import django
from django.conf import settings as django_settings

from daram.config import prepare_data
from daram.errors import ConfigError, MissingExtra
from daram.settings import Settings, mask

HERE: Final = Path(__file__).parent
SHARED: Final = HERE.parent / "adapters" / "django"
"""The pages of the administration that any Django project can have."""
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
SESSION_SECONDS: Final = 14 * 24 * 3600
BUSY_SECONDS: Final = 60
POOL_SECONDS: Final = 5
"""How long a request waits for a connection to a server of accounts that may be gone."""
_configured: Settings | None = None
_FOR_DJANGO: Final = ("accounts", "allowed_hosts", "host", "oidc_client", "oidc_url", "public_url")
OIDC: Final = "sso"
"""What the OpenID Connect provider is called in addresses: ``/login/oidc/sso/login/callback/``."""


def configure(settings: Settings) -> None:
    """Set Django up, once per process: a second time is nothing, or a ``ConfigError`` where it would be otherwise.

    Makes the data directory and the secret key where there are none. Migrates nothing: ``accounts.setup`` does. Raises
    ``MissingExtra``.
    """
    global _configured
    if _configured is not None:
        same = all(getattr(settings, name) == getattr(_configured, name) for name in _FOR_DJANGO)
        if not same or accounts_file(settings) != accounts_file(_configured):
            raise ConfigError("this process is set up with other settings already; Django cannot be set up twice")
        return
    if django_settings.configured:
        raise ConfigError("Django is set up already in this process, and not by Daram; run the service by itself")
    prepare_data(settings)
    given = _django(settings)
    if settings.oidc_url:
        _add_oidc(given, settings)
    django_settings.configure(**given)
    django.setup()
    _configured = settings


def configured() -> Settings:
    """The settings that ``configure`` was given."""
    if _configured is None:
        raise ConfigError("the service is not set up: configure(settings) comes first")
    return _configured


def _django(settings: Settings) -> dict[str, Any]:
    public = urlsplit(settings.public_url or "")
    secure = public.scheme == "https"
    secret = settings.secret_key or secret_key(settings.data / "secret-key")
    cookie = f"{'__Host-' if secure else ''}daram-{_cookie_suffix(settings)}"
    return {
        "SECRET_KEY": secret,
        "DEBUG": False,
        "ALLOWED_HOSTS": _hosts(settings),
        "ROOT_URLCONF": "daram.service.urls",
        "AUTH_USER_MODEL": "accounts.User",
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "INSTALLED_APPS": [
            "daram.service.accounts",
            "daram.service.admin.apps.ConversationsConfig",
            "daram.service.admin.apps.SiteConfig",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
        ],
        "MIDDLEWARE": [
            "django.middleware.security.SecurityMiddleware",
            "daram.service.headers.PageHeaders",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.locale.LocaleMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        "TEMPLATES": [
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [HERE / "templates", SHARED / "templates"],
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        "DATABASES": {"default": _database(settings)},
        "PASSWORD_HASHERS": [
            "daram.service.accounts.backend.Argon2",
            "django.contrib.auth.hashers.PBKDF2PasswordHasher",
        ],
        "AUTHENTICATION_BACKENDS": ["daram.service.accounts.backend.NameOrEmail"],
        "AUTH_PASSWORD_VALIDATORS": [
            {"NAME": f"django.contrib.auth.password_validation.{name}"}
            for name in (
                "UserAttributeSimilarityValidator",
                "MinimumLengthValidator",
                "CommonPasswordValidator",
                "NumericPasswordValidator",
            )
        ],
        # Sessions. A "__Host-" cookie belongs to exactly this host, and browsers take it over TLS only.
        "SESSION_COOKIE_NAME": cookie,
        "SESSION_COOKIE_AGE": SESSION_SECONDS,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": secure,
        "CSRF_COOKIE_NAME": f"{cookie}-csrf",
        "CSRF_COOKIE_HTTPONLY": True,
        "CSRF_COOKIE_SAMESITE": "Lax",
        "CSRF_COOKIE_SECURE": secure,
        # Behind a proxy that ends TLS, Django sees http where the browser says https.
        "CSRF_TRUSTED_ORIGINS": [settings.public_url] if settings.public_url else [],
        "SECURE_CONTENT_TYPE_NOSNIFF": True,
        "SECURE_CROSS_ORIGIN_OPENER_POLICY": "same-origin",
        "SECURE_REFERRER_POLICY": "same-origin",
        "X_FRAME_OPTIONS": "DENY",
        "DATA_UPLOAD_MAX_MEMORY_SIZE": 1 << 20,
        "DATA_UPLOAD_MAX_NUMBER_FIELDS": 200,
        "FILE_UPLOAD_HANDLERS": [
            "django.core.files.uploadhandler.MemoryFileUploadHandler",
            "daram.service.uploads.LargeFiles",
        ],
        "LOGIN_URL": "/login",
        "LOGIN_REDIRECT_URL": "/",
        "LOGOUT_REDIRECT_URL": "/login",
        "STATIC_URL": "/static/",
        "STATICFILES_DIRS": [
            ("daram", HERE / "static"),
            ("daram", HERE.parent / "ui" / "static"),
            SHARED / "static",
        ],
        "LANGUAGE_CODE": "en",
        "LANGUAGES": [("en", "English"), ("ko", "한국어")],
        "LOCALE_PATHS": [HERE / "locale", SHARED / "locale"],
        "USE_I18N": True,
        "USE_TZ": True,
        "TIME_ZONE": "UTC",
        "LOGGING_CONFIG": None,  # how the service logs is observe's to say
    }


def _cookie_suffix(settings: Settings) -> str:
    """Cookies do not know ports: two Darams on one machine must not sign each other out. So the name says in which
    accounts the login is: the same for all processes that share them, and no secret.
    """
    where = mask(settings.accounts) if settings.accounts else str(settings.data.resolve())
    return sha256(where.encode()).hexdigest()[:8]


def _add_oidc(given: dict[str, Any], settings: Settings) -> None:
    """Let people log in at a provider: allauth speaks the protocol, ``accounts.oidc`` says who may come in."""
    if importlib.util.find_spec("allauth") is None:
        raise MissingExtra("Login by OpenID Connect", "oidc")
    if not settings.oidc_client:
        raise ConfigError("DARAM_OIDC_URL needs DARAM_OIDC_CLIENT: the id under which the provider knows this service")
    given["INSTALLED_APPS"] += [
        "allauth",
        "allauth.account",
        "allauth.socialaccount",
        "allauth.socialaccount.providers.openid_connect",
    ]
    given["MIDDLEWARE"].append("allauth.account.middleware.AccountMiddleware")
    client = {
        "provider_id": OIDC,
        "name": settings.oidc_name,
        "client_id": settings.oidc_client,
        "secret": settings.oidc_secret or "",
        "settings": {"server_url": settings.oidc_url, "oauth_pkce_enabled": True},
    }
    given |= {
        "SOCIALACCOUNT_PROVIDERS": {"openid_connect": {"APPS": [client]}},
        "SOCIALACCOUNT_ADAPTER": "daram.service.accounts.oidc.Adapter",
        # The way to the provider is a link: Chromium applies form-action to where a form's answer redirects.
        "SOCIALACCOUNT_LOGIN_ON_GET": True,
        "SOCIALACCOUNT_STORE_TOKENS": False,
        "SOCIALACCOUNT_REQUESTS_TIMEOUT": 10,
        "ACCOUNT_DEFAULT_HTTP_PROTOCOL": urlsplit(settings.public_url or "").scheme or "http",
        "ACCOUNT_EMAIL_VERIFICATION": "none",
    }


def _hosts(settings: Settings) -> list[str]:
    listens = settings.host.strip("[]")
    named = [] if listens in ("0.0.0.0", "::") else [f"[{listens}]" if ":" in listens else listens]  # noqa: S104
    public = urlsplit(settings.public_url or "").hostname
    if public:
        named.append(f"[{public}]" if ":" in public else public)
    return [*LOCAL_HOSTS, *named, *settings.allowed_hosts]


# --- the secret key -------------------------------------------------------------------------------------------------


def secret_key(path: Path) -> str:
    """The key in this file, made where there is none: readable by its owner only, whole or not there.

    Raises ``ConfigError`` where it cannot be made or read, or is none.
    """
    try:
        if not path.exists():
            _make_secret(path)
        found = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the secret key {path} cannot be made or read: {error}") from error
    if len(found) < 50:
        raise ConfigError(f"{path} holds no secret key; remove it: a new one is made (and every login ends)")
    return found


def _make_secret(path: Path) -> None:
    # Several processes may start at once: each writes one of its own, the first link wins, and all read that one.
    mine = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(64) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)
    finally:
        mine.unlink()


# --- the database ---------------------------------------------------------------------------------------------------


def accounts_file(settings: Settings) -> Path | None:
    """The SQLite file of the accounts; None where they are in PostgreSQL."""
    if settings.accounts is None:
        return settings.data / "accounts.sqlite3"
    parts = urlsplit(settings.accounts)
    return Path(unquote(parts.path)) if parts.scheme == "sqlite" else None


def journal_mode() -> str:
    """How the SQLite of this Python is to keep its journal.

    Before 3.51.3 (and the releases that got the fix later) a WAL file that is reset while another connection reads
    can damage the database; the interpreter's own SQLite often is older.
    """
    fixed = sqlite3.sqlite_version_info
    safe = fixed >= (3, 51, 3) or (3, 50, 7) <= fixed < (3, 51) or (3, 44, 6) <= fixed < (3, 45)
    return "wal" if safe else "truncate"


def _database(settings: Settings) -> dict[str, Any]:
    file = accounts_file(settings)
    if file is not None:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": file,
            "CONN_MAX_AGE": 0,
            "OPTIONS": {
                "timeout": BUSY_SECONDS,
                # A transaction that reads first and then writes would fail at once, whatever the timeout.
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA synchronous=FULL",
            },
        }
    parts = urlsplit(settings.accounts or "")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": parts.port or "",
        # Requests run on short-lived threads: a pool keeps their connections.
        "OPTIONS": {**dict(parse_qsl(parts.query)), "pool": {"min_size": 0, "max_size": 10, "timeout": POOL_SECONDS}},
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
    }
