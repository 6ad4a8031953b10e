"""A small OpenID Connect provider that says what a test tells it to, over real HTTP."""

from __future__ import annotations

import json
import secrets
import threading
from base64 import urlsafe_b64encode
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt


class Provider:
    """``claims``: who is logged in there; ``broken``: the end at which the next request fails."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.broken = ""
        self.refuses = ""
        self.asked: list[dict[str, str]] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._tokens: dict[str, dict[str, Any]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.answer(self, {})

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                provider.answer(self, one_each(self.rfile.read(length).decode()))

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(60)
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, form: dict[str, str]) -> None:
        """Answer a request."""
        parts = urlsplit(handler.path)
        end = parts.path.strip("/")
        if end == self.broken:
            self._send(handler, 500, {"error": "server_error"})
        elif end == ".well-known/openid-configuration":
            ends = {f"{name}_endpoint": f"{self.url}/{name}" for name in ("authorization", "token", "userinfo")}
            document = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **ends}
            self._send(handler, 200, document | {"token_endpoint_auth_methods_supported": ["client_secret_post"]})
        elif end == "authorization":
            self._authorize(handler, one_each(parts.query))
        elif end == "token":
            self._exchange(handler, form)
        elif end == "userinfo":
            token = handler.headers.get("authorization", "").removeprefix("Bearer ")
            found = self._tokens.get(token)
            self._send(handler, 200 if found else 401, found or {})
        else:
            self._send(handler, 404, {})

    def _authorize(self, handler: BaseHTTPRequestHandler, asked: dict[str, str]) -> None:
        self.asked.append(asked)
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        given = {"error": self.refuses} if self.refuses else {"code": code}
        handler.send_response(302)
        handler.send_header("location", f"{asked['redirect_uri']}?{urlencode({**given, 'state': asked['state']})}")
        handler.send_header("content-length", "0")
        handler.end_headers()

    def _exchange(self, handler: BaseHTTPRequestHandler, form: dict[str, str]) -> None:
        asked = self._codes.pop(form.get("code", ""), None)
        proof = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        right = (
            asked is not None
            and form.get("client_secret") == "provider-secret"
            and form.get("redirect_uri") == asked["redirect_uri"]
            and proof == asked.get("code_challenge")  # PKCE
        )
        if not right or asked is None:
            self._send(handler, 400, {"error": "invalid_grant"})
            return
        token = secrets.token_urlsafe(16)
        self._tokens[token] = dict(self.claims)
        said = {**self.claims, "iss": self.url, "aud": asked["client_id"], "exp": 4102444800, "iat": 1700000000}
        id_token = jwt.encode(said, "k" * 32, algorithm="HS256")
        self._send(handler, 200, {"access_token": token, "token_type": "Bearer", "id_token": id_token})

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def one_each(query: str) -> dict[str, str]:
    """The parameters, each of which comes once."""
    return {name: values[0] for name, values in parse_qs(query).items()}
