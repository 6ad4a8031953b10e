"""Fetching documents: from public addresses only, within bounds, each redirect looked at anew."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.knowledge.web import Web, answer

from daram.errors import DaramError, DocumentError, DocumentTooLarge, TooLarge
from daram.knowledge.fetch import Fetcher, FetchLimits, is_public

HERE = ipaddress.ip_network("127.0.0.1/32")  # the server of the tests, and nothing else of what is private
HTML = b"<h1>Squirrels</h1><p>They hide acorns.</p>"


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web.open() as web:
        yield web


async def fetch(url: str, **limits: Any) -> tuple[str, str | None, bytes]:
    async with Fetcher(FetchLimits(**limits), allow=[HERE]) as fetcher, fetcher.open(url) as page:
        return page.url, page.media_type, b"".join([piece async for piece in page.pieces])


@contextmanager
def refused(kind: type[DaramError], words: str) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert words in str(caught.value)


async def test_a_page_comes_with_its_kind(web: Web) -> None:
    web.pages["/a"] = answer(HTML, "text/html; charset=utf-8")
    assert await fetch(web.url("/a")) == (web.url("/a"), "text/html", HTML)
    (asked,) = web.asked
    assert asked["host"] == f"127.0.0.1:{web.port}"
    assert asked["user-agent"].startswith("daram")


@pytest.mark.parametrize(
    ("path", "said", "kind"),
    [("/a.pdf", "application/octet-stream", "application/pdf"), ("/a.md?x=1", "text/plain", "text/markdown")],
)
async def test_where_the_server_does_not_know_the_url_says_the_kind(web: Web, path: str, said: str, kind: str) -> None:
    web.pages[path] = answer(b"x", said)
    assert (await fetch(web.url(path)))[1] == kind


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
        ),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fec0::1", "fc00::1", "ff02::1", "2001:db8::1"),
        *("64:ff9b:1::7f00:1", "::127.0.0.1", "::ffff:0:7f00:1", "2001::1", "100::1", "fe80::1%eth0"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    ],
)
def test_what_is_private_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_what_is_public_is(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"])
async def test_nothing_private_is_asked_by_whatever_name(web: Web, host: str) -> None:
    web.pages["/"] = answer(HTML, "text/html")
    async with Fetcher() as fetcher:
        with pytest.raises(DaramError):
            async with fetcher.open(web.url("/", host)):
                pass
    assert web.asked == []


async def test_a_name_is_refused_for_any_of_its_addresses_and_resolved_once(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    asked: list[str] = []
    answers = {"both.test": ["127.0.0.1", "10.0.0.1"], "turns.test": ["127.0.0.1"]}

    async def resolve(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        found = answers[host] if asked.count(host) == 1 else ["10.0.0.1"]  # another answer to whoever asks again
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    web.pages["/"] = answer(HTML, "text/html")
    with refused(DocumentError, "10.0.0.1, which is no public address"):
        await fetch(web.url("/", "both.test"))
    assert web.asked == []
    # What was looked at is what is connected to, under the name.
    assert (await fetch(web.url("/", "turns.test")))[2] == HTML
    assert asked.count("turns.test") == 1
    assert web.asked[0]["host"] == f"turns.test:{web.port}"


async def test_a_redirect_is_followed_and_looked_at_anew(web: Web) -> None:
    web.pages["/old"] = answer(b"", status="302 Found", location="/new", set_cookie="a=b")
    web.pages["/new"] = answer(HTML, "text/html")
    web.pages["/in"] = answer(b"", status="301 Moved", location="http://169.254.169.254/latest/meta-data/")
    web.pages["/file"] = answer(b"", status="307 Moved", location="file:///etc/passwd")
    assert (await fetch(web.url("/old")))[::2] == (web.url("/new"), HTML)
    assert "cookie" not in web.asked[1]
    with refused(DocumentError, "169.254.169.254, which is no public address"):
        await fetch(web.url("/in"))
    with refused(DocumentError, "only http:// and https://"):
        await fetch(web.url("/file"))


async def test_redirects_end(web: Web) -> None:
    web.pages["/round"] = answer(b"", status="302 Found", location="/round")
    with refused(DocumentError, "more than 3 redirects"):
        await fetch(web.url("/round"), redirects=3)
    assert len(web.asked) == 4


async def test_bytes_are_bounded_whatever_the_server_says(web: Web) -> None:
    ended = asyncio.Event()

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        finally:
            ended.set()

    web.pages["/"] = endless
    with refused(DocumentTooLarge, "more than 1,000,000 bytes"):
        await fetch(web.url("/"), bytes=1_000_000)
    await asyncio.wait_for(ended.wait(), 60)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nx"])
async def test_time_is_bounded_before_and_within_the_answer(web: Web, head: bytes) -> None:
    let_go = asyncio.Event()

    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()
        await let_go.wait()

    web.pages["/"] = silent
    try:
        with refused(DocumentTooLarge, "takes longer than 0.3 seconds"):
            await fetch(web.url("/"), seconds=0.3)
    finally:
        let_go.set()


async def test_a_body_that_drips_has_the_same_time_as_one_that_stands_still(web: Web) -> None:
    ended = asyncio.Event()

    async def dripping(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    web.pages["/"] = dripping
    with refused(DocumentTooLarge, "takes longer than 0.5 seconds"):
        await fetch(web.url("/"), seconds=0.5)
    await asyncio.wait_for(ended.wait(), 60)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (answer(b"no", status="403 Forbidden"), "answers 403"),
        (answer(gzip.compress(bytes(1000)), "text/html", content_encoding="gzip"), "compressed"),
        (answer(HTML, "text/html").replace(b"content-length: 4", b"content-length: 9"), "connection broke"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "cannot be fetched"),
    ],
)
async def test_what_is_no_page_is_said(web: Web, page: bytes, words: str) -> None:
    web.pages["/"] = page
    with refused(DocumentError, words):
        await fetch(web.url("/"))


async def test_what_is_no_url_is_said(web: Web) -> None:
    with refused(DocumentError, "user's name"):
        await fetch("http://me:secret@127.0.0.1/")
    with refused(DocumentError, "only http:// and https://"):
        await fetch("gopher://127.0.0.1/")
    with refused(DocumentError, "there is no host 'nothing.invalid'"):
        await fetch("http://nothing.invalid/")
    with pytest.raises(TooLarge):
        await fetch("http://127.0.0.1/" + "a" * 600)


# --- sitemaps -------------------------------------------------------------------------------------------------------


def sitemap(web: Web, *places: str, root: str = "urlset", item: str = "url") -> bytes:
    items = "".join(f"<{item}><loc> {place} </loc><lastmod>2026-01-01</lastmod></{item}>" for place in places)
    return f'<?xml version="1.0"?><{root} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{items}</{root}>'.encode()


async def pages_of(url: str, **limits: Any) -> list[str]:
    async with Fetcher(FetchLimits(**limits), allow=[HERE]) as fetcher:
        return await fetcher.sitemap(url)


async def test_a_sitemap_names_pages_of_its_own_site(web: Web) -> None:
    named = (web.url("/a"), web.url("/b?x=1&amp;y=2"), "http://elsewhere.test/", "file:///etc/passwd", web.url("/a"))
    web.pages["/sitemap.xml"] = answer(sitemap(web, *named), "application/xml")
    assert await pages_of(web.url("/sitemap.xml")) == [web.url("/a"), web.url("/b?x=1&y=2")]


async def test_an_index_of_sitemaps_and_one_that_is_packed(web: Web) -> None:
    index = sitemap(web, web.url("/1.xml"), web.url("/2.xml.gz"), web.url("/"), root="sitemapindex", item="sitemap")
    web.pages["/"] = answer(index, "text/xml")
    web.pages["/1.xml"] = answer(sitemap(web, web.url("/a")), "text/xml")
    web.pages["/2.xml.gz"] = answer(gzip.compress(sitemap(web, web.url("/b"))), "application/gzip")
    assert await pages_of(web.url("/")) == [web.url("/a"), web.url("/b")]
    assert len(web.asked) == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html><body/></html>", "root is <html>"),
        (b"not xml", "is no sitemap"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><urlset><url><loc>&b;</loc></url></urlset>', "document type"),
        (b"\x1f\x8bbroken", "cannot be unpacked"),
    ],
)
async def test_what_is_no_sitemap_is_said(web: Web, data: bytes, words: str) -> None:
    web.pages["/"] = answer(data, "text/xml")
    with refused(DocumentError, words):
        await pages_of(web.url("/"))


async def test_sitemaps_that_name_each_other_end(web: Web) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        named = (web.url(f"/{other}"), web.url(f"/{one}"), *(web.url(f"/{one}{n}") for n in range(100)))
        web.pages[f"/{one}"] = answer(sitemap(web, *named, root="sitemapindex", item="sitemap"), "text/xml")
    for n in range(100):
        for one in ("a", "b"):
            page = sitemap(web, web.url("/a"), web.url(f"/page{n}"), root="urlset")
            web.pages[f"/{one}{n}"] = answer(page, "text/xml")
    found = await pages_of(web.url("/a"))
    assert len(web.asked) == 50
    assert 0 < len(found) <= 51


async def test_a_sitemap_is_bounded(web: Web) -> None:
    web.pages["/many"] = answer(sitemap(web, *(web.url(f"/{n}") for n in range(11))), "text/xml")
    with refused(DocumentTooLarge, "more than 10 pages"):
        await pages_of(web.url("/many"), pages=10)
    with refused(DocumentTooLarge, "more than 100 bytes"):
        await pages_of(web.url("/many"), sitemap=100)
    web.pages["/bomb"] = answer(gzip.compress(bytes(1_000_000)), "text/xml")
    with refused(DocumentTooLarge, "unpacks to more than 100,000 bytes"):
        await pages_of(web.url("/bomb"), sitemap=100_000)
