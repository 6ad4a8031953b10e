"""Documents from the web, on somebody's explicit request: a page by its URL, or all pages of a sitemap.

A URL is a user's word, and what it leads to is a stranger's. A name is resolved once, every address that it has is
looked at, and the connection is made to an address that was looked at, under the name (TLS checks that). Redirects are
followed here, each looked at anew. What is sent is bounded in bytes, seconds and redirects, and is never unpacked on
the way.
"""

from __future__ import annotations

import asyncio
import ipaddress
import mimetypes
import socket
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Final, Self
from xml.parsers import expat

import httpx
import msgspec

from daram.errors import DocumentError, DocumentTooLarge, InvalidInput
from daram.store import validate

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_CHARS: Final = 500
_AGENT: Final = "Daram"
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_GZIP: Final = b"\x1f\x8b"
_SITEMAPS: Final = 50  # that an index of sitemaps may name


class FetchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one fetch: ``bytes`` of what is sent, ``seconds`` from the beginning to the last byte, ``redirects``;
    and of a sitemap: ``sitemap`` in bytes, ``pages``."""

    bytes: int = 64 << 20
    seconds: float = 60.0
    redirects: int = 5
    sitemap: int = 8 << 20
    pages: int = 1_000


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL leads to. ``url``: after redirects; ``media_type``: as the server says, else by the URL's suffix."""

    url: str
    media_type: str | None
    pieces: AsyncGenerator[bytes, None]


class Fetcher:
    """Fetches over HTTP and HTTPS, from public addresses. ``allow``: other networks that may be fetched from as well.

    Raises ``DocumentError`` where a URL cannot be fetched (the text says why), ``DocumentTooLarge`` over a bound.
    """

    def __init__(self, limits: FetchLimits = FetchLimits(), *, allow: Sequence[Network] = ()) -> None:
        self.limits = limits
        self._allow = tuple(allow)
        # No proxies of the environment: they would resolve the name again, and reach what is private to them.
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(15.0),
            # None is used twice: to the pool two names at one address are the same place, to TLS they are not.
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"user-agent": _AGENT, "accept-encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Fetched]:
        """What is at a URL; its bytes are to be read while this is open."""
        first = url
        deadline = asyncio.get_running_loop().time() + self.limits.seconds
        for _ in range(self.limits.redirects + 1):
            response = await self._ask(first, url, deadline)
            try:
                location = response.headers.get("location")
                if response.status_code in _REDIRECTS and location:
                    url = _joined(first, url, location)
                    continue
                if response.status_code != 200:
                    raise DocumentError(first, f"the server answers {response.status_code}")
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise DocumentError(first, "the server sends it compressed, although it was asked not to")
                async with aclosing(self._pieces(first, response, deadline, self.limits.bytes)) as pieces:
                    yield Fetched(url=url, media_type=_media_type(response, url), pieces=pieces)
                return
            finally:
                await response.aclose()
        raise DocumentError(first, f"more than {self.limits.redirects} redirects")

    async def sitemap(self, url: str) -> list[str]:
        """The pages that a sitemap, or an index of sitemaps, names; those of other sites are left out.

        Raises ``DocumentTooLarge`` where there are more than ``limits.pages``.
        """
        site = httpx.URL(url).host
        found: dict[str, None] = {}
        waiting, seen = [url], {url}
        while waiting:
            one = waiting.pop(0)
            kind, places = _parsed(one, await self._whole(one))
            for place in places:
                if _host(place) != site:
                    continue
                if kind == "urlset":
                    found[place] = None
                elif place not in seen and len(seen) < _SITEMAPS:
                    seen.add(place)
                    waiting.append(place)
            if len(found) > self.limits.pages:
                raise DocumentTooLarge(url, f"names more than {self.limits.pages:,} pages")
        return list(found)

    # --- one request ---

    async def _ask(self, first: str, url: str, deadline: float) -> httpx.Response:
        there = _checked(first, url)
        problem: Exception | None = None
        try:
            async with asyncio.timeout_at(deadline):
                for address in await self._addresses(first, there):
                    # An answer sets no cookie for the address: another site may be asked there next.
                    self._client.cookies.clear()
                    request = self._client.build_request(
                        "GET",
                        there.copy_with(host=str(address)),
                        headers={"host": there.netloc.decode("ascii")},
                        extensions={"sni_hostname": there.raw_host.decode("ascii")},
                    )
                    try:
                        return await self._client.send(request, stream=True)
                    except httpx.ConnectError as error:
                        problem = error
        except TimeoutError:
            raise DocumentTooLarge(first, f"takes longer than {self.limits.seconds:g} seconds") from None
        except httpx.HTTPError as error:
            problem = error
        raise DocumentError(first, f"cannot be fetched: {str(problem) or type(problem).__name__}") from problem

    async def _addresses(self, first: str, url: httpx.URL) -> list[Address]:
        host = url.host
        try:
            found: list[Address] = [ipaddress.ip_address(host)]
        except ValueError:
            port = url.port or (443 if url.scheme == "https" else 80)
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(
                    url.raw_host.decode("ascii"), port, type=socket.SOCK_STREAM
                )
            except (OSError, UnicodeError):
                raise DocumentError(first, f"there is no host {host!r}") from None
            found = list(dict.fromkeys(ipaddress.ip_address(info[4][0]) for info in infos))
        for address in found:
            if not (is_public(address) or any(address in network for network in self._allow)):
                raise DocumentError(first, f"{host!r} is at {address}, which is no public address")
        return found

    async def _pieces(
        self, first: str, response: httpx.Response, deadline: float, most: int
    ) -> AsyncGenerator[bytes, None]:
        size = 0
        raw = response.aiter_raw()
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = await anext(raw, None)
            except TimeoutError:
                raise DocumentTooLarge(first, f"takes longer than {self.limits.seconds:g} seconds") from None
            except httpx.HTTPError as error:
                raise DocumentError(first, f"the connection broke: {str(error) or type(error).__name__}") from error
            if piece is None:
                return
            size += len(piece)
            if size > most:
                raise DocumentTooLarge(first, f"more than {most:,} bytes")
            yield piece

    async def _whole(self, url: str) -> bytes:
        data = bytearray()
        async with self.open(url) as fetched:
            async for piece in fetched.pieces:
                data += piece
                if len(data) > self.limits.sitemap:
                    raise DocumentTooLarge(url, f"more than {self.limits.sitemap:,} bytes")
        if not data.startswith(_GZIP):
            return bytes(data)
        unpacker = zlib.decompressobj(wbits=31)
        try:
            text = unpacker.decompress(bytes(data), self.limits.sitemap)
        except zlib.error as error:
            raise DocumentError(url, f"cannot be unpacked: {error}") from error
        if unpacker.unconsumed_tail:
            raise DocumentTooLarge(url, f"unpacks to more than {self.limits.sitemap:,} bytes")
        return text


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, and none that stands for another that is not."""
    if isinstance(address, ipaddress.IPv6Address):
        within = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            within.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(inner is not None and not is_public(inner) for inner in within):
            return False
        if address.is_site_local:
            return False
        if address.ipv4_mapped is not None or address in _NAT64:
            return True
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def is_url(source: str) -> bool:
    """Whether a source is fetched, not opened."""
    return source.lower().startswith(("http://", "https://"))


def _checked(first: str, url: str) -> httpx.URL:
    try:
        there = httpx.URL(validate.text(url, "url", URL_CHARS, "characters"))
    except httpx.InvalidURL as error:
        raise InvalidInput("url", f"{url!r} is none: {error}") from error
    if there.scheme not in ("http", "https") or not there.host:
        raise DocumentError(first, f"{url!r}: only http:// and https:// are fetched")
    if there.userinfo:
        raise DocumentError(first, "a URL with a user's name or password in it is not fetched")
    return there.copy_with(fragment=None)


def _joined(first: str, url: str, location: str) -> str:
    try:
        return str(httpx.URL(url).join(location))
    except httpx.InvalidURL as error:
        raise DocumentError(first, f"redirects to what is no URL: {error}") from error


def _media_type(response: httpx.Response, url: str) -> str | None:
    given = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given in ("", "application/octet-stream", "binary/octet-stream", "text/plain"):
        return mimetypes.guess_type(httpx.URL(url).path)[0] or given or None
    return str(given)


def _host(place: str) -> str | None:
    try:
        return httpx.URL(place).host
    except httpx.InvalidURL:
        return None


def _parsed(url: str, data: bytes) -> tuple[str, list[str]]:
    """The root of a sitemap and its ``loc``. A document type, the one door to entities, is refused."""
    parser = expat.ParserCreate(namespace_separator=" ")
    path: list[str] = []
    places: list[str] = []
    roots: list[str] = []
    text: list[str] = []

    def started(name: str, _attributes: dict[str, str]) -> None:
        path.append(name.rpartition(" ")[2])
        if len(path) == 1:
            roots.append(path[0])
        text.clear()

    def ended(_name: str) -> None:
        if path[1:] in (["url", "loc"], ["sitemap", "loc"]):
            places.append("".join(text).strip())
        path.pop()

    def refused(*_of: object) -> None:
        raise DocumentError(url, "is no sitemap: it has a document type")

    parser.StartElementHandler = started
    parser.EndElementHandler = ended
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = refused
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DocumentError(url, f"is no sitemap: {error}") from error
    if roots not in (["urlset"], ["sitemapindex"]):
        raise DocumentError(url, f"is no sitemap: its root is <{roots[0]}>")
    return roots[0], places
