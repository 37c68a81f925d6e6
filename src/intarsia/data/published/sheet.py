"""The sheet of a published data set: what it is, under which terms, and how one gets it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file to download and unpack."""

    url: str
    megabytes: int
    """Size in words of its source; not checked."""
    sha256: str | None = None
    """None: not known here; it is recorded at the first download."""
    md5: str | None = None
    """As its source states it; checked where it is known."""
    into: str = ""
    """Folder below the data set's in which it is unpacked."""

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2].partition("?")[0]


@dataclass(frozen=True)
class Sheet:
    """What a person must know before using a data set."""

    title: str
    source: str
    """Web page."""
    licence: str
    classes: str
    """How many, in words."""
    images: str
    """How many in each split, in words."""
    sizes: str
    """(height, width) in words."""
    layout: str
    """Folders and files below `path`."""
    citation: str
    archives: tuple[Archive, ...] = ()
    """What anybody may download; empty: see `steps`."""
    steps: tuple[str, ...] = ()
    """What to do by hand."""
    folder: str = ""
    """Where `path` lies below the folder into which the archives are unpacked."""

    @property
    def open(self) -> bool:
        """Whether `intarsia data download` fetches it."""
        return bool(self.archives)
