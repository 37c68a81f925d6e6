"""Optional C: a file of ours, compiled once on the user's machine and held against its slow form before it is used.

The library lies in the cache folder under a hash of all it depends on: source, flags, compiler, processor. Whatever fails
(no compiler, a folder that cannot be written, other numbers than expected) is no error: the slow form serves, and `state`
says why, for `intarsia doctor`. INTARSIA_KERNEL=0 turns all of it off, CC names another compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from intarsia.devices import cpu_flags, cpu_name
from intarsia.downloads import cache_folder

T = TypeVar("T")

COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    "-O3",
    "-march=native" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",  # not -ffast-math: infinities and NaN keep their meaning
    "-fopenmp-simd",  # the simd pragma alone: no threads, no library
    "-fPIC",
    "-shared",
)
TIMEOUT = 120.0
"""Seconds that the compiler may take."""


class Unfit(Exception):
    """There is no compiled form here; the message is the reason."""


class Compiled(Generic[T]):
    """A C file and what Python makes of its library.

    Args:
        source: the file.
        face: makes of the library what `load` gives, and raises `Unfit` if it computes other numbers than the slow form.
    """

    def __init__(self, source: Path, face: Callable[[ctypes.CDLL], T]) -> None:
        self.source, self.face = source, face
        self._tried: dict[tuple[str | None, ...], tuple[T | None, str]] = {}
        self._lock = threading.Lock()

    def load(self) -> T | None:
        """The compiled form, made and checked at the first call of a process; None where the slow form is to be used."""
        return self._found()[0]

    def state(self) -> str:
        """One line: with what the file was compiled, or why it is not used."""
        return self._found()[1]

    def path(self) -> Path:
        """Where the library of this machine's compiler lies.

        Raises:
            Unfit: there is no compiler that works.
        """
        return self._path(*_compiler())

    def _found(self) -> tuple[T | None, str]:
        if os.environ.get("INTARSIA_KERNEL") == "0":
            return None, "plain forms are used: turned off by INTARSIA_KERNEL=0"
        key = tuple(map(os.environ.get, ("CC", "INTARSIA_CACHE", "XDG_CACHE_HOME", "HOME")))
        if key not in self._tried:
            with self._lock:
                if key not in self._tried:
                    self._tried[key] = self._try()
        return self._tried[key]

    def _try(self) -> tuple[T | None, str]:
        try:
            path, about = self._compile()
            return self.face(ctypes.CDLL(str(path))), f"compiled by {about}: {path}"
        except Exception as error:  # whatever it is, work goes on without
            words = " ".join(str(error).split()) or type(error).__name__
            return None, f"plain forms are used: {words[:300]}"

    def _compile(self) -> tuple[Path, str]:
        """The library, made if it is not there, and the first line of what its compiler says of itself."""
        command, about = _compiler()
        path = self._path(command, about)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix="making-") as aside:
                made = Path(aside) / path.name
                _run([*command, *FLAGS, "-o", str(made), str(self.source)])
                made.replace(path)  # at once: another process sees all of it or nothing
        if hasattr(os, "getuid") and path.stat().st_uid not in (os.getuid(), 0):
            raise Unfit(
                f"{path} belongs to another user, whose code is not run; set INTARSIA_CACHE to a folder of your own"
            )
        return path, about.partition("\n")[0]

    def _path(self, command: list[str], about: str) -> Path:
        named = "\0".join([self.source.read_text("utf-8"), *command, *FLAGS, about, cpu_name(), *sorted(cpu_flags())])
        name = f"{self.source.stem}-{hashlib.sha256(named.encode()).hexdigest()[:16]}.so"
        return cache_folder() / "kernels" / name


def summary(libraries: dict[str, Compiled[Any]]) -> str:
    """One line on several: which are compiled, and why others are not."""
    reasons: dict[str, list[str]] = {}
    for name, each in libraries.items():
        reasons.setdefault("compiled" if each.load() else each.state(), []).append(name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())


def _compiler() -> tuple[list[str], str]:
    """The command of $CC, which may have words behind it, or of the first compiler there is; what it says of itself."""
    if named := shlex.split(os.environ.get("CC", "")):
        if shutil.which(named[0]) is None:
            raise Unfit(f"CC names {named[0]}, which is not there")
        return named, _run([*named, "--version"])
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found], _run([found, "--version"])
    raise Unfit(f"there is no C compiler ({', '.join(COMPILERS)}); install one for faster losses on the processor")


def _run(command: list[str]) -> str:
    """What a command prints."""
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        check=False,
    )
    if ended.returncode:
        said = (ended.stderr.strip() or ended.stdout.strip() or "nothing").splitlines()[0]
        raise Unfit(f"`{Path(command[0]).name}` ended with {ended.returncode} and said: {said}")
    return ended.stdout
