"""Files fetched once: resumable, hashed, kept in a cache folder that one can fill by hand.

A download grows in NAME.part beside the file and takes the file's name only when its hash is right. Whoever downloads holds a
lock on the part, which ends with its process: a second one waits and then finds the file. A part that a stopped process left
is gone on with. Systems without such locks (Windows, some network folders) hold nothing; there the hash tells of a mixture.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from intarsia.errors import DownloadError, IntegrityError, SaveError, UsageError
from intarsia.progress import Progress, Silent

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

TIMEOUT = 30.0
"""Seconds that a server may be silent."""
WAITS = (1.0, 3.0)
"""Seconds before the second and the third try after a dropped connection."""
CHUNK = 1 << 18
PASSING = (408, 429, 500, 502, 503, 504)
"""HTTP answers that a later try may change."""


class _Failed(Exception):
    """The download ends; the message is the reason in words."""


class _Dropped(_Failed):
    """The connection ended early; another try may help."""


def cache_folder() -> Path:
    """INTARSIA_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("INTARSIA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "intarsia"


def fetch(url: str, path: Path, *, sha256: str | None, progress: Progress | None = None) -> Path:
    """`path`, downloaded from `url` if it is not there, and held against its hash in either case.

    Args:
        url: http or https.
        path: where the file lies; its folder is made.
        sha256: all 64 hexadecimal digits, or at least the first 8; None: not known, whatever comes whole is taken.
        progress: where megabytes are shown; nowhere by default.

    Raises:
        UsageError: a url or hash of another form.
        DownloadError: no network, or the server gives no such file.
        IntegrityError: the file there, or the one that came, has another hash.
        SaveError: the folder does not take the file.
    """
    digits = (sha256 or "").lower()
    if not url.lower().startswith(("http://", "https://")):
        raise UsageError(f"{url}: is no http or https url. Files of other places are put into {path.parent} by hand.")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{8,64}", digits):
        raise UsageError(f"sha256 of {path.name}: must be 8 to 64 hexadecimal digits, got {sha256!r}.")
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch(url, path, digits, progress or Silent())
        except _Failed as error:
            raise DownloadError(
                f"{path.name}: could not be downloaded from {url} ({error}). "
                f"On a machine without network put the file into {path.parent}"
            ) from None
        except OSError as error:
            raise SaveError(
                f"{path}: cannot be written ({error.strerror or error}). "
                "Make room, or choose another cache folder with INTARSIA_CACHE."
            ) from None
        return path
    return _checked(path, digits)


def _fetch(url: str, path: Path, digits: str, progress: Progress) -> None:
    """Fill the part, look at its hash, rename. An OSError that leaves here is the disk's, a _Failed the network's."""
    part = path.with_name(path.name + ".part")
    with _alone(part, progress):
        if path.is_file():  # another process was quicker
            _checked(path, digits)
            return
        if part.stat().st_size == 0 or not digits or not _sha256(part).startswith(digits):
            _download(url, part, progress)
            if not (got := _sha256(part)).startswith(digits):
                part.unlink()
                raise IntegrityError(
                    f"{path.name}: what came from {url} is not the published file (sha256 expected {digits}, got "
                    f"{got[: len(digits)]}); it was removed. Try again, or put the file into {path.parent} by hand."
                )
        part.replace(path)


def _checked(path: Path, digits: str) -> Path:
    """`path`, if its hash is right."""
    try:
        got = _sha256(path)
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read ({error.strerror or error}). Delete it.") from None
    if not got.startswith(digits):
        raise IntegrityError(
            f"{path}: is not the published file (sha256 expected {digits}, got {got[: len(digits)]}). "
            "Delete it; it is then downloaded again."
        )
    return path


def _sha256(path: Path) -> str:
    from intarsia.runs import file_sha256  # here: it brings NumPy

    return file_sha256(path)


@contextmanager
def _alone(part: Path, progress: Progress) -> Iterator[None]:
    """Make the part and hold it against other processes and threads; an empty one is taken away at the end."""
    while True:
        file = part.open("ab")
        try:
            _lock(file, part, progress)
            if _is_at(file, part):  # else whoever held it has renamed or removed it
                break
        except BaseException:
            file.close()
            raise
        file.close()
    try:
        yield
    finally:
        with suppress(OSError):
            if _is_at(file, part) and part.stat().st_size == 0:
                part.unlink()
        file.close()


def _lock(file: IO[bytes], part: Path, progress: Progress) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress.note(f"{part.stem}: another process downloads it; waiting")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        pass


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether a path still names an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _download(url: str, part: Path, progress: Progress) -> None:
    """Fill the part; after a dropped connection go on where it ended, three tries in all."""
    for wait in WAITS:
        try:
            return _transfer(url, part, progress)
        except _Dropped as error:
            progress.note(f"{part.stem}: {error}; trying again")
            time.sleep(wait)
    return _transfer(url, part, progress)


def _transfer(url: str, part: Path, progress: Progress) -> None:
    """One request: what the part lacks, or all of it where the server gives no rest."""
    have = part.stat().st_size
    response, start = _ask(url, have)
    length = response.headers.get("Content-Length") or ""
    total = start + int(length) if length.isdigit() else 0
    done = start
    with response, part.open("ab") as file, progress.task("download", total / 1e6) as task:
        if start < have:
            file.truncate(start)
        while (not total or done < total) and (chunk := _read(response)):
            file.write(chunk)
            done += len(chunk)
            task.update(done / 1e6, f"{done / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB"))
        file.flush()
        os.fsync(file.fileno())
    if total and done != total:
        raise _Dropped(f"the connection ended after {done} of {total} bytes")


def _ask(url: str, have: int) -> tuple[Any, int]:
    """The open answer to a request for the bytes from `have` on, and the byte at which it starts: `have` or 0."""
    for first in (have, 0):
        response = _open(url, first)
        if response is not None:
            if response.status != 206:  # all of it, asked for or not
                return response, 0
            found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
            if found and int(found[1]) == first:
                return response, first
            response.close()
    raise _Failed("the server gives another part of the file than was asked for")


def _open(url: str, first: int) -> Any:
    """An open answer, None if the server has no bytes from there on."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request

    from intarsia import __version__

    headers = {"User-Agent": f"intarsia/{__version__}"} | ({"Range": f"bytes={first}-"} if first else {})
    try:
        return _opener().open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and first:
            return None
        kind = _Dropped if error.code in PASSING else _Failed
        raise kind(f"HTTP {error.code} {error.reason}".strip()) from None
    except URLError as error:  # not reached: no network, no such host, refused, a bad certificate
        cut = isinstance(error.reason, ConnectionError) and not isinstance(error.reason, ConnectionRefusedError)
        raise (_Dropped if cut else _Failed)(_words(error.reason)) from None
    except (OSError, HTTPException) as error:
        raise _Dropped(_words(error)) from None
    except ValueError as error:
        raise _Failed(_words(error)) from None


def _opener() -> OpenerDirector:
    """urllib's, following redirects, but not from https to anything else."""
    from urllib.error import URLError
    from urllib.request import HTTPRedirectHandler, build_opener

    class Redirects(HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            safe = ("https://",) if req.full_url.lower().startswith("https://") else ("https://", "http://")
            if not newurl.lower().startswith(safe):
                raise URLError(f"the server redirects to {newurl}, which is not {' or '.join(safe)}")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return build_opener(Redirects)


def _read(response: Any) -> bytes:
    """The next bytes as they come, at most a chunk."""
    from http.client import HTTPException

    try:
        chunk: bytes = response.read1(CHUNK)
    except (OSError, HTTPException) as error:
        raise _Dropped(_words(error)) from None
    return chunk


def _words(error: object) -> str:
    """A network error in one line."""
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:.0f} s"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
