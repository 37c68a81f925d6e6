"""Videos: times kept to the tick, frames upright, class maps without loss, damage told, memory that does not grow."""

import gc
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from intarsia.errors import FileError, SaveError
from intarsia.images.video import VideoFrames, VideoWriter, is_video

av = pytest.importorskip("av", reason="the extra video is not installed")
RNG = np.random.default_rng(0)
UNEVEN = [Fraction(tick, 90000) for tick in (0, 3003, 9009, 9010, 20000, 90000, 91001)]
SHADES = [20, 60, 100, 140, 180, 220, 250]


def picture(shade, size=(48, 64)):
    pixels = np.full((*size, 3), shade, np.uint8)
    pixels[: size[0] // 2, : size[1] // 2] = 0  # a dark corner: top left
    return pixels


def film(path, times=UNEVEN, size=(48, 64), base=Fraction(1, 90000)):
    with VideoWriter(path, size, base) as writer:
        for index, time in enumerate(times):
            writer.write(picture(SHADES[index % len(SHADES)], size), time)
    return path


def turned_film(path, degrees, hflip, frames=3):
    """Written by PyAV itself, with a display matrix."""
    container = av.open(str(path), "w")
    stream = container.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    stream.set_display_rotation(degrees, hflip=hflip)
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32], stored[:24, 32:], stored[24:, :32], stored[24:, 32:] = 40, 100, 160, 220
    for index in range(frames):
        frame = av.VideoFrame.from_ndarray(stored, "rgb24")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        for packet in stream.encode(frame):
            container.mux(packet)
    for packet in stream.encode():
        container.mux(packet)
    container.close()
    return stored


@pytest.mark.parametrize("base", [Fraction(1, 90000), Fraction(1, 1000), Fraction(1001, 30000), Fraction(1, 12800)])
def test_times_are_kept_to_the_tick(base, tmp_path):
    times = [base * tick for tick in (0, 1, 2, 5, 6, 40, 41, 42, 300, 301)]
    path = film(tmp_path / "x.mp4", times, base=base)
    video = VideoFrames(path)
    assert [time for _, time in video] == times
    assert video.count == len(times)
    assert video.notes == ()


def test_a_late_start_is_kept(tmp_path):
    times = [time + 2 for time in UNEVEN]
    assert [time for _, time in VideoFrames(film(tmp_path / "x.mp4", times))] == times


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_frames_come_in_order_and_nearly_as_they_were_drawn(size, tmp_path):
    video = VideoFrames(film(tmp_path / "x.mp4", size=size))
    assert video.size == (48, 64)  # even, as H.264 with halved colour wants it
    for (pixels, _), shade in zip(video, SHADES, strict=True):
        assert pixels.shape == (48, 64, 3)
        assert pixels.dtype == np.uint8
        assert abs(pixels[-8:, -8:].astype(int) - shade).max() <= 6
        assert pixels[:16, :24].max() < 40


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("hflip", [False, True])
def test_frames_are_upright(degrees, hflip, tmp_path):
    stored = turned_film(tmp_path / "x.mp4", degrees, hflip)
    upright = np.rot90(stored, degrees // 90)
    upright = upright[:, ::-1] if hflip else upright
    video = VideoFrames(tmp_path / "x.mp4")
    assert video.size == upright.shape[:2]
    for pixels, _ in video:
        middle = np.s_[8::16, 8::16]
        assert abs(pixels[middle].astype(int) - upright[middle]).max() <= 6


def test_class_maps_are_read_back_bit_for_bit(tmp_path):
    path = tmp_path / "x.mkv"
    maps = [RNG.integers(0, 256, (33, 65), dtype=np.uint8) for _ in UNEVEN]
    with VideoWriter(path, (33, 65), Fraction(1, 90000), "classes") as writer:
        for classes, time in zip(maps, UNEVEN, strict=True):
            writer.write(classes, time)
    read = list(VideoFrames(path, grey=True))
    assert len(read) == len(maps)
    for (classes, time), written, told in zip(read, maps, UNEVEN, strict=True):
        assert np.array_equal(classes, written)
        assert abs(time - told) <= Fraction(1, 1000)  # Matroska counts in milliseconds
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("ffv1", "gray")


def test_overlay_is_what_players_show(tmp_path):
    with av.open(str(film(tmp_path / "x.mp4"))) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_mpeg4_where_h264_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("intarsia.images.video._overlay_codec", lambda av: "mpeg4")
    times = [time for _, time in VideoFrames(film(tmp_path / "x.mp4"))]
    assert np.allclose([float(time) for time in times], [float(time) for time in UNEVEN], atol=1 / 30000)


def test_two_frames_of_one_time_follow_each_other(tmp_path):
    path = film(tmp_path / "x.mp4", [Fraction(0), Fraction(1), Fraction(1), Fraction(2)])
    times = [time for _, time in VideoFrames(path)]
    assert times == [0, 1, 1 + Fraction(1, 90000), 2]


def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory of a process is read from /proc")
def test_memory_does_not_grow_with_the_length(tmp_path):
    size, base, path = (240, 320), Fraction(1, 25), tmp_path / "x.mp4"
    taken = {}
    with VideoWriter(path, size, base) as writer:
        for index in range(1200):
            writer.write(picture(index % 250, size), index * base)
            if index in (600, 1199):
                taken["write", index] = resident()
    for index, _ in enumerate(VideoFrames(path)):
        if index in (600, 1199):
            taken["read", index] = resident()
    grown = 600 * size[0] * size[1] * 3  # of frames that were kept
    assert taken["write", 1199] - taken["write", 600] < grown / 5
    assert taken["read", 1199] - taken["read", 600] < grown / 5


def stop_after_a_frame(writer):
    writer.write(picture(0), Fraction(0))
    raise KeyError


def test_an_error_leaves_nothing(tmp_path):
    for path in (tmp_path / "x.mp4", tmp_path / "kept.mp4"):
        if path.name == "kept.mp4":
            path.write_bytes(b"before")
        with pytest.raises(KeyError), VideoWriter(path, (48, 64), Fraction(1, 25)) as writer:
            stop_after_a_frame(writer)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.mp4"]
    assert (tmp_path / "kept.mp4").read_bytes() == b"before"


def test_what_cannot_be_written(tmp_path):
    with (
        pytest.raises(SaveError, match="must be"),
        VideoWriter(tmp_path / "x.mp4", (48, 64), Fraction(1, 25)) as writer,
    ):
        writer.write(picture(0, (20, 20)), Fraction(0))
    with pytest.raises(SaveError, match="no frame was written"):
        VideoWriter(tmp_path / "x.mp4", (48, 64), Fraction(1, 25)).close()
    with pytest.raises(SaveError, match="cannot be written"):
        VideoWriter(tmp_path / "none" / "x.mp4", (48, 64), Fraction(1, 25))
    assert not list(tmp_path.iterdir())


def test_cut_off_and_damaged_files(tmp_path):
    path = film(tmp_path / "x.mp4", [Fraction(index, 25) for index in range(50)])
    content = path.read_bytes()
    for length in (40, len(content) // 2, content.index(b"moov") + 300):
        path.write_bytes(content[:length])
        with pytest.raises(FileError) as told:
            VideoFrames(path)
        assert told.value.code in ("E_TRUNCATED", "E_CORRUPT")
    path.write_bytes(content[:-20])  # words about the maker
    assert VideoFrames(path).notes == ("is cut off: the end of the file is missing",)
    start = content.index(b"moov")
    path.write_bytes(content[:start] + b"\xff" * 60 + content[start + 60 :])
    with pytest.raises(FileError):
        VideoFrames(path)
    path.write_bytes(b"")
    with pytest.raises(FileError) as told:
        VideoFrames(path)
    assert told.value.code == "E_EMPTY"


def test_a_film_that_ends_early_says_after_how_many_frames(tmp_path):
    source, path = film(tmp_path / "s.mp4", [Fraction(i, 25) for i in range(50)]), tmp_path / "x.mp4"
    with av.open(str(source)) as read, av.open(str(path), "w", options={"movflags": "faststart"}) as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                write.mux(packet)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2])
    video = VideoFrames(path)
    count = len(list(video))
    assert 0 < count < 50
    assert any(note == f"ends early: {count} of the 50 frames that it tells of are there" for note in video.notes)


def test_damage_in_the_middle_is_told_and_all_else_is_read(tmp_path):
    path = film(tmp_path / "x.mp4", [Fraction(i, 25) for i in range(20)])
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.pts is not None][10]
    content = bytearray(path.read_bytes())
    content[place : place + 4] = b"\x7f\xff\xff\xff"  # the length of what follows
    path.write_bytes(content)
    video = VideoFrames(path)
    times = [time for _, time in video]
    assert len(times) == 19
    assert times[-1] == Fraction(19, 25)
    assert any("damaged" in note for note in video.notes)


def test_damage_in_a_class_map_stays_in_its_frame(tmp_path):
    path, maps = tmp_path / "x.mkv", RNG.integers(0, 256, (20, 64, 64), dtype=np.uint8)
    with VideoWriter(path, (64, 64), Fraction(1, 25), "classes") as writer:
        for index, classes in enumerate(maps):
            writer.write(classes, Fraction(index, 25))
    content = bytearray(path.read_bytes())
    content[40000:40100] = bytes(100)
    path.write_bytes(content)
    read = [classes for classes, _ in VideoFrames(path, grey=True)]
    assert sum(not np.array_equal(a, b) for a, b in zip(read, maps, strict=True)) == 1


def test_what_is_no_video(tmp_path):
    sound = tmp_path / "x.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    text = tmp_path / "y.mp4"
    text.write_text("#EXTM3U\nhttp://127.0.0.1/never-asked.ts\n")
    for path, code in ((sound, "E_NOT_IMAGE"), (text, "E_NOT_IMAGE"), (tmp_path / "z.mp4", "E_MISSING")):
        with pytest.raises(FileError) as told:
            VideoFrames(path)
        assert told.value.code == code
    assert not is_video(text)


def test_videos_are_told_by_ending_and_content(tmp_path):
    path = film(tmp_path / "x.mp4")
    assert is_video(path)
    assert is_video(path.rename(tmp_path / "x.MOV"))
    other = tmp_path / "x.bin"
    (tmp_path / "x.MOV").rename(other)
    assert not is_video(other)
    assert not is_video(tmp_path)
    still = tmp_path / "x.mp4"
    still.write_bytes(b"\0\0\0\x1cftypheic" + bytes(100))
    assert not is_video(still)
