"""Every deliberate exception. The command line prints the message and leaves with the exit code; it never shows a traceback.

    IntarsiaError
    ├── UsageError        2   a wrong argument
    │   ├── ConfigError       a setting that does not exist or has a wrong value
    │   ├── UnknownName       a name that no registry holds
    │   └── MissingExtra      an optional package that is not installed
    ├── PartialFailure    3   some items failed, all others are done
    ├── Diverged          4   the loss is not finite
    ├── DataError         6   images, masks or class tables that cannot be used
    │   └── FileError         one file; carries the path and a stable code such as E_TRUNCATED
    ├── IntegrityError    7   a stored file is not what its manifest says
    │   ├── PickleRefused     it is a pickle, which could run code when it is opened
    │   ├── TruncatedFile     its end is missing
    │   ├── HashMismatch      it is not the file that was saved
    │   ├── NonFiniteWeights  weights that are not finite numbers
    │   ├── WrongClassCount   the network has other classes than the class table
    │   ├── WrongWeights      weights of another network
    │   └── GoldenMismatch    the network computes something else than when it was saved
    ├── DownloadError    69   a published file could not be fetched
    ├── SaveError        74   a result could not be written
    └── Interrupted      75   stopped by a signal, or by a cluster without room; what is done is saved, and can be gone on with

A message says what was wrong, what was met, and what to do.
"""

from __future__ import annotations

from pathlib import Path


class IntarsiaError(Exception):
    """The root: catch it to catch everything that intarsia raises on purpose."""

    exit_code = 1


def reason_of(error: BaseException, *, line: int = 0) -> str:
    """One line of another library's complaint, which may be a page; the name of the error if it says nothing.

    Args:
        line: 0 the first, which mostly says it; -1 the last.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[line][:300]


class UsageError(IntarsiaError):
    """A wrong argument."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting that does not exist or has a wrong value."""


class UnknownName(UsageError):
    """A name that no registry holds."""


class MissingExtra(UsageError):
    """An optional package that is not installed."""


class PartialFailure(IntarsiaError):
    """Some items failed; everything else is done."""

    exit_code = 3


class Diverged(IntarsiaError):
    """The loss is not finite, and stayed so."""

    exit_code = 4


class DataError(IntarsiaError):
    """Images, masks or class tables that cannot be used as they are."""

    exit_code = 6


class FileError(DataError):
    """One file that cannot be used: `path`, a stable `code`, and the `reason` in words."""

    def __init__(self, path: Path | str, code: str, reason: str) -> None:
        super().__init__(f"{path}: {reason} [{code}]")
        self.path, self.code, self.reason = Path(path), code, reason


class IntegrityError(IntarsiaError):
    """A stored file is not what its manifest says."""

    exit_code = 7


class PickleRefused(IntegrityError):
    """A pickle, which could run code when it is opened."""


class TruncatedFile(IntegrityError):
    """A file whose end is missing."""


class HashMismatch(IntegrityError):
    """A file that is not the one that was saved."""


class NonFiniteWeights(IntegrityError):
    """Weights that are not finite numbers."""


class WrongClassCount(IntegrityError):
    """A network with other classes than the class table."""


class WrongWeights(IntegrityError):
    """Weights of another network."""


class GoldenMismatch(IntegrityError):
    """A network that computes something else than when it was saved."""


class DownloadError(IntarsiaError):
    """A published file could not be fetched; the message names file, url and the folder to put it into by hand."""

    exit_code = 69


class SaveError(IntarsiaError):
    """A result could not be written."""

    exit_code = 74


class Interrupted(IntarsiaError):
    """Stopped after saving, by a signal or because nothing can proceed; the message says how to go on."""

    exit_code = 75
