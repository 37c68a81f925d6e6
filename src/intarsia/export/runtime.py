"""The runtime that runs a network in a browser: three files of onnxruntime-web (WebAssembly on the processor).

They come from the user (the package's folder, or the archive that `npm pack onnxruntime-web` writes) or, once, from the npm
registry into the cache folder. Servers that do not know the ending .mjs serve such files in a way that browsers refuse, so the
files are given names in .js.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from intarsia.downloads import cache_folder, fetch
from intarsia.errors import IntegrityError, SaveError, UsageError
from intarsia.progress import Progress
from intarsia.runs import file_sha256

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
FILES = {
    "ort.wasm.min.mjs": "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
"""Name in the package's dist/ to the name beside the page: the interface, what starts the WebAssembly, and that itself."""
_UNPACKED = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""sha256 of the files in the published archive."""
LARGEST = 1 << 26
"""Bytes of the largest file that is taken out of an archive."""
LICENCE = """\
MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR
IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
"""The package itself holds no licence file; this is that of its repository."""


def fetch_runtime(
    given: Path | None = None,
    progress: Progress | None = None,
    *,
    url: str = URL,
    sha256: str = SHA256,
    unpacked: dict[str, str] | None = None,
) -> Path:
    """The folder that holds `FILES`.

    Args:
        given: a folder with them (such as node_modules/onnxruntime-web), or the package's .tgz; None: the cache folder,
            filled from the npm registry the first time.
        progress: where megabytes are shown.
        url: of the archive.
        sha256: of the archive.
        unpacked: sha256 of each of `FILES` in it.

    Raises:
        UsageError: what was given is not there, or holds no such files.
        DownloadError: no network; the message names the file and where to put it by hand.
        IntegrityError: the archive is damaged, or is another.
        SaveError: the disk does not take it.
    """
    if given is not None:
        return _given(given)
    hashes = _UNPACKED if unpacked is None else unpacked
    folder = cache_folder() / "onnxruntime-web" / sha256[:12]
    if all((folder / name).is_file() and file_sha256(folder / name) == expected for name, expected in hashes.items()):
        return folder
    archive = fetch(url, folder.parent / url.rpartition("/")[2], sha256=sha256, progress=progress)
    return _unpack(archive, folder)


def _given(place: Path) -> Path:
    """The folder with the files, in or under what a user named."""
    if place.is_file():
        digest = file_sha256(place)
        folder = cache_folder() / "onnxruntime-web" / digest[:12]
        return folder if _is_complete(folder) else _unpack(place, folder)
    for folder in (place, place / "dist", place / "package" / "dist", place / "onnxruntime-web" / "dist"):
        if _is_complete(folder):
            return folder
    met = "does not hold" if place.is_dir() else "does not exist; it must hold"
    raise UsageError(
        f"--runtime {place}: {met} {', '.join(FILES)}. Give the package's folder, or the .tgz of  npm pack onnxruntime-web"
    )


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _unpack(archive: Path, folder: Path) -> Path:
    """Only `FILES`, into `folder`, which is there with all of them or not at all."""
    aside: str | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)
        _take(archive, Path(aside))
        if not _is_complete(Path(aside)):
            raise UsageError(
                f"--runtime {archive}: holds no {', '.join(FILES)}. Give the .tgz of  npm pack onnxruntime-web"
            )
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise IntegrityError(f"{archive}: is no archive that can be read ({error}). Delete it and try again.") from None
    except OSError as error:
        if _is_complete(folder):  # another process was quicker
            return folder
        raise SaveError(
            f"{folder}: cannot be written ({error.strerror or error}). "
            "Make room, or choose another cache folder with INTARSIA_CACHE."
        ) from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _take(archive: Path, folder: Path) -> None:
    """The members of dist/ that are wanted, as plain files under their own names."""
    with tarfile.open(archive) as opened:
        for member in opened:
            *_, parent, name = ("", *PurePosixPath(member.name).parts)
            if name in FILES and parent == "dist" and member.isfile() and member.size <= LARGEST:
                opened.extract(member.replace(name=name, deep=False), folder, filter="data")
