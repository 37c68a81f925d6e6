"""Videos: frames read upright with their times, overlays and class maps written; memory does not grow with the length.

Times are the file's own (PTS), as fractions of a second; nothing is resampled to a constant rate. H, W: an upright frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import FileError, SaveError
from intarsia.images.files import guarded, max_pixels
from intarsia.images.sniff import kind_of
from intarsia.optional import need

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"}
)
_STILLS = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_OTHER = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"FLV\1", b"OggS", b"0&\xb2u\x8ef\xcf\x11")  # EBML, MPEG-PS, FLV, Ogg, ASF
_TS_PACKET = 188
_MOST_FAILURES = 1000
_FIRST_RATE = Fraction(25)
_ENCODING = {
    "libx264": {"crf": "18", "preset": "veryfast"},
    "mpeg4": {"qmin": "2", "qmax": "4"},
    "ffv1": {"level": "3", "slicecrc": "1", "g": "1"},
}


def is_video(path: Path | str) -> bool:
    """Whether a file has a video's ending and begins as one does."""
    path = Path(path)
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and _begins_as_video(path)


def _begins_as_video(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4 * _TS_PACKET)
    if start[4:8] in _ATOMS:
        return start[4:8] != b"ftyp" or start[8:12] not in _STILLS
    if start[:4] == b"RIFF":
        return start[8:12] == b"AVI "
    is_stream = any(start[at::step][:3] == b"GGG" for at, step in ((0, _TS_PACKET), (4, _TS_PACKET + 4)))
    return start.startswith(_OTHER) or is_stream


class VideoFrames:
    """The frames of a video's first picture track; each iteration reads the file anew.

    Yields (pixels, time): (H, W, 3) uint8 RGB, upright, and seconds as the file counts them. `notes` is whole at the end.

    Args:
        grey: (H, W) uint8 of a grey video instead, unchanged: class maps of `VideoWriter`.

    Raises:
        FileError: E_NOT_IMAGE, it holds no video; E_TRUNCATED or E_CORRUPT, it is cut off or damaged so that no frame is left.
    """

    def __init__(self, path: Path | str, *, grey: bool = False) -> None:
        need("av", extra="video")
        self.path, self.grey = Path(path), grey
        self.notes: tuple[str, ...] = ()
        with guarded(self.path):
            if not _begins_as_video(self.path):
                raise FileError(self.path, "E_NOT_IMAGE", f"is no video ({kind_of(self.path)})")
        with self._opened() as (container, stream):
            self.count: int | None = int(stream.frames) or None
            """Frames that the file tells of; None where it tells none."""
            self.rate: Fraction | None = stream.average_rate
            """Frames a second, on average."""
            self.time_base = Fraction(stream.time_base)
            """Seconds a tick of its clock."""
            try:
                first = next(self._decoded(container, stream, set()))
            except StopIteration:
                raise self._without_frames() from None
            self.size = self._upright(first).shape[:2]
            """(H, W)"""
            self._told = self._noticed(first)
            self.notes = self._told

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], Fraction]]:
        troubles: set[str] = set()
        number, time = 0, Fraction(0)
        with self._opened() as (container, stream):
            for frame in self._decoded(container, stream, troubles):
                if frame.pts is not None:
                    time = frame.pts * Fraction(frame.time_base or self.time_base)
                elif number:
                    time += 1 / (self.rate or _FIRST_RATE)
                number += 1
                yield self._upright(frame), time
        if self.count and number < self.count:
            troubles.add(f"ends early: {number} of the {self.count} frames that it tells of are there")
        self.notes = (*self._told, *sorted(troubles))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        av = need("av", extra="video")
        try:
            container = av.open(str(self.path.resolve()), options={"protocol_whitelist": "file"})
        except Exception as error:  # IndexError for some that are cut off
            raise self._damaged(error) from None
        try:
            streams = [each for each in container.streams.video if not _is_cover(each)]
            if not streams and _is_cut_off(self.path):
                raise self._damaged(ValueError("no track"))
            if not streams:
                raise FileError(self.path, "E_NOT_IMAGE", "holds no video track, only sound or text")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]
        finally:
            container.close()

    def _decoded(self, container: Any, stream: Any, troubles: set[str]) -> Iterator[Any]:
        """Frames in order of their times; what is damaged is passed over and told."""
        packets, failures = container.demux(stream), 0
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except EOFError:
                return
            except Exception:  # over damage av raises OSError, ValueError, IndexError and errors of its own
                troubles.add("damaged in places: frames are missing")
                failures += 1
                if failures > _MOST_FAILURES:  # the reading itself stands still
                    return
                continue
            failures = 0
            for frame in frames:
                if frame.is_corrupt:
                    troubles.add("damaged in places: some frames are shown as far as they could be decoded")
                yield frame

    def _upright(self, frame: Any) -> NDArray[np.uint8]:
        if frame.width * frame.height > max_pixels():
            told = f"has more pixels than the limit of {max_pixels()}; set INTARSIA_MAX_PIXELS to allow it"
            raise FileError(self.path, "E_TOO_LARGE", told)
        try:
            stored = frame.to_ndarray(format="gray" if self.grey else "rgb24")
        except Exception as error:
            raise self._damaged(error) from None
        turned = _turned(stored, _matrix(frame))
        if hasattr(self, "size") and turned.shape[:2] != self.size:
            told = f"changes its size from {self.size} to {turned.shape[:2]}; save it with one size"
            raise FileError(self.path, "E_DIM", told)
        return np.ascontiguousarray(turned)

    def _noticed(self, first: Any) -> tuple[str, ...]:
        a, b, c, d = _matrix(first)
        is_slanted = not ((a == d == 0) or (b == c == 0))
        notes = ["is to be turned by an angle that is no quarter; left as stored"] if is_slanted else []
        return (*notes, *(["is cut off: the end of the file is missing"] if _is_cut_off(self.path) else []))

    def _without_frames(self) -> FileError:
        return self._damaged(ValueError("no frame can be decoded"))

    def _damaged(self, error: Exception) -> FileError:
        if _is_cut_off(self.path):
            return FileError(self.path, "E_TRUNCATED", "is cut off: the end of the file is missing")
        return FileError(self.path, "E_CORRUPT", f"is damaged ({type(error).__name__})")


def _is_cover(stream: Any) -> bool:
    """Whether a track is the still picture of a piece of music."""
    disposition = getattr(stream, "disposition", None)
    return "attached_pic" in str(getattr(disposition, "name", disposition) or "")


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: column' = a column + c row, row' = b column + d row (ISO 14496-12, 8.3.2)."""
    for side in frame.side_data:
        data = side if not isinstance(side, str) else frame.side_data.get(side)
        if getattr(getattr(data, "type", None), "name", "") == "DISPLAYMATRIX":
            values = np.frombuffer(bytes(data)[:36], np.int32)
            return int(values[0]), int(values[1]), int(values[3]), int(values[4])
    return 1, 0, 0, 1


def _turned(stored: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """(H, W, ...) upright; unchanged if the matrix is no quarter turn or mirroring."""
    a, b, c, d = matrix
    if a == d == 0 and b and c:
        stored, a, d = stored.swapaxes(0, 1), c, b
    elif b or c:
        return stored
    return stored[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _is_cut_off(path: Path) -> bool:
    """Whether a box of an MP4 or MOV reaches beyond the end, or the index (moov) is missing."""
    size, at, kinds = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if at == 0 and kind not in _ATOMS:
                return False
            kinds.add(kind)
            length = int.from_bytes(header[8:16], "big") if length == 1 else length or size - at
            if length < 8:
                return False  # damaged, not cut off
            at += length
    return at != size or b"moov" not in kinds


class VideoWriter:
    """A video written frame by frame under a name of its own, and given its final name when it is closed whole.

    `overlay`: MP4, H.264 (MPEG-4 part 2 where libx264 is missing), yuv420p; an odd side is padded by its last row or column.
    `classes`: Matroska, FFV1, 8-bit grey: class numbers, lossless. Matroska counts in milliseconds; map n belongs to frame n.

    Args:
        path: MP4 or MKV; what is there is replaced at the end.
        size: (H, W) of the frames.
        time_base: seconds a tick; times are kept exactly if they are whole ticks.
        rate: frames a second, a hint for the encoder.

    Raises:
        SaveError: it cannot be written, or a frame has another size.
    """

    def __init__(
        self,
        path: Path | str,
        size: tuple[int, int],
        time_base: Fraction,
        kind: Literal["overlay", "classes"] = "overlay",
        *,
        rate: Fraction | None = None,
    ) -> None:
        av = need("av", extra="video")
        self.path, self.size, self.kind, self.time_base = Path(path), size, kind, Fraction(time_base)
        self.temporary = self.path.with_name(f".{self.path.name}.part")
        self._last: int | None = None
        height, width = size
        self._container: Any = None
        with self._saving():
            self.temporary.touch()  # the library opens it with the first frame only
            self._container = av.open(
                str(self.temporary.resolve()), "w", format="mp4" if kind == "overlay" else "matroska"
            )
            codec = "ffv1" if kind == "classes" else _overlay_codec(av)
            if codec == "mpeg4" and self.time_base.denominator > 65535:  # a limit of its format
                self.time_base = Fraction(1, 65535)
            options = _ENCODING[codec]
            self._stream = stream = self._container.add_stream(codec, rate=rate or _FIRST_RATE, options=options)
            even = kind == "overlay"
            stream.height, stream.width = (height + height % 2, width + width % 2) if even else (height, width)
            stream.pix_fmt = "yuv420p" if kind == "overlay" else "gray"
            stream.codec_context.time_base = self.time_base
            stream.codec_context.thread_type = "AUTO"
            if codec != "ffv1":
                stream.codec_context.max_b_frames = 0  # frames in order of their times: no shift at the start

    def write(self, pixels: NDArray[np.uint8], time: Fraction) -> None:
        """Add a frame, (H, W, 3) RGB or (H, W) class numbers, at a time that is later than that of the last one."""
        wanted = (*self.size, 3) if self.kind == "overlay" else self.size
        if pixels.shape != wanted or pixels.dtype != np.uint8:
            raise SaveError(f"{self.path}: a frame must be {wanted} of uint8, got {pixels.shape} of {pixels.dtype}")
        ticks = round(time / self.time_base)
        if self._last is not None and ticks <= self._last:  # a file may give two frames one time; an encoder may not
            ticks = self._last + 1
        self._last = ticks
        av = need("av", extra="video")
        if self.kind == "overlay":
            pixels = np.pad(pixels, ((0, self.size[0] % 2), (0, self.size[1] % 2), (0, 0)), mode="edge")
        with self._saving():
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels), "rgb24" if self.kind == "overlay" else "gray"
            )
            frame.pts, frame.time_base = ticks, self.time_base
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def close(self) -> None:
        """Write what is left, and give the file its final name."""
        if self._container is None:
            return
        if self._last is None:
            self.abort()
            raise SaveError(f"{self.path}: no frame was written, so that there is no video")
        with self._saving():
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
            self._container = None
            os.replace(self.temporary, self.path)

    def abort(self) -> None:
        """Leave nothing behind."""
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
        except Exception:  # what could not be written before cannot be now
            pass
        finally:
            self.temporary.unlink(missing_ok=True)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # av's errors are such
            self.abort()
            raise SaveError(
                f"{self.path}: cannot be written ({error}); look at the folder and its free space"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _overlay_codec(av: Any) -> str:
    try:
        return str(av.codec.Codec("libx264", "w").name)
    except Exception:  # built without it
        return "mpeg4"
