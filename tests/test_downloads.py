"""Downloads against a server in this process: resumed, hashed, alone, and with one clear line for every failure."""

import errno
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import HTTPRedirectHandler, Request

import pytest

from intarsia import downloads
from intarsia.downloads import fetch
from intarsia.errors import DownloadError, IntegrityError, SaveError, UsageError

DATA = bytes(range(256)) * 4000  # 1 MB
SHA = hashlib.sha256(DATA).hexdigest()


class Server:
    """Serves `data` at /file.pth on this machine; the modes are attributes."""

    def __init__(self) -> None:
        self.data = DATA
        self.drops: list[int] = []
        """Bytes after which the next answers end early."""
        self.statuses: list[int] = []
        """Statuses of the next answers."""
        self.ranges = True
        self.shift = 0
        """Bytes by which a range starts too late."""
        self.pause = 0.0
        self.seen: list[tuple[str, str | None]] = []
        """Path and Range of each request."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.url = f"{self.address}/file.pth"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.seen.append((request.path, request.headers.get("Range")))
        if self.statuses:
            self.head(request, self.statuses.pop(0))
        elif request.path.startswith("/moved"):
            self.head(request, 302, Location="/file.pth")
        elif request.path != "/file.pth":
            self.head(request, 404)
        else:
            self.send(request)

    def send(self, request: BaseHTTPRequestHandler) -> None:
        asked = re.match(r"bytes=(\d+)-", request.headers.get("Range") or "") if self.ranges else None
        start = int(asked[1]) + self.shift if asked else 0
        body, size = self.data[start:], len(self.data)
        if asked and not body:
            self.head(request, 416)
        elif asked:
            self.head(request, 206, Content_Length=len(body), Content_Range=f"bytes {start}-{size - 1}/{size}")
        else:
            self.head(request, 200, Content_Length=len(body))
        if self.drops:
            body = body[: self.drops.pop(0)]
        try:
            for at in range(0, len(body), 100_000):
                request.wfile.write(body[at : at + 100_000])
                time.sleep(self.pause)
        except OSError:  # the other side was killed
            pass

    def head(self, request: BaseHTTPRequestHandler, status: int, **headers: object) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), str(value))
        request.end_headers()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "WAITS", (0.01, 0.01))
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights" / "file.pth"


def part_of(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("file.pth.part")
    part.write_bytes(content)
    return part


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def message_of(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize("sha256", [SHA, SHA[:8], SHA[:12].upper()])
def test_a_fresh_download_is_whole_and_leaves_nothing_else(server, path, sha256):
    assert fetch(server.url, path, sha256=sha256) == path
    assert path.read_bytes() == DATA
    assert names(path) == ["file.pth"]
    assert server.seen == [("/file.pth", None)]


def test_a_file_that_is_there_costs_no_request(server, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert fetch(server.url, path, sha256=SHA[:8]) == path
    assert server.seen == []


def test_a_wrong_file_that_is_there_is_named_and_kept(server, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(IntegrityError) as error:
        fetch(server.url, path, sha256=SHA[:8])
    text = message_of(error)
    for word in (str(path), SHA[:8], hashlib.sha256(b"mine").hexdigest()[:8], "Delete it"):
        assert word in text
    assert path.read_bytes() == b"mine"
    assert server.seen == []


def test_a_part_is_gone_on_with(server, path):
    part_of(path, DATA[:300_001])
    fetch(server.url, path, sha256=SHA)
    assert server.seen == [("/file.pth", "bytes=300001-")]
    assert path.read_bytes() == DATA
    assert names(path) == ["file.pth"]


def test_a_complete_part_needs_no_request(server, path):
    part_of(path, DATA)
    fetch(server.url, path, sha256=SHA)
    assert server.seen == []
    assert names(path) == ["file.pth"]


def test_a_server_without_ranges_means_from_the_start(server, path):
    server.ranges = False
    part_of(path, DATA[:300_000])
    fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == DATA


def test_a_part_that_is_too_long_means_from_the_start_once(server, path):
    part_of(path, DATA + b"more")
    fetch(server.url, path, sha256=SHA)
    assert server.seen == [("/file.pth", f"bytes={len(DATA) + 4}-"), ("/file.pth", None)]
    assert path.read_bytes() == DATA


def test_a_range_of_another_place_is_not_appended(server, path):
    server.shift = 7
    part_of(path, DATA[:300_000])
    fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == DATA


def test_a_dropped_connection_is_taken_up_where_it_ended(server, path):
    server.drops = [200_000, 100_000]
    fetch(server.url, path, sha256=SHA)
    assert [asked for _, asked in server.seen] == [None, "bytes=200000-", "bytes=300000-"]
    assert path.read_bytes() == DATA


def test_three_drops_end_it_and_the_next_call_goes_on(server, path):
    server.drops = [200_000, 100_000, 50_000]
    with pytest.raises(DownloadError, match="ended after 350000 of 1024000 bytes") as error:
        fetch(server.url, path, sha256=SHA)
    assert str(path.parent) in message_of(error)
    assert names(path) == ["file.pth.part"]
    fetch(server.url, path, sha256=SHA)
    assert server.seen[-1] == ("/file.pth", "bytes=350000-")
    assert path.read_bytes() == DATA


def test_a_busy_server_is_asked_again(server, path):
    server.statuses = [503, 429]
    fetch(server.url, path, sha256=SHA)
    assert len(server.seen) == 3


def test_wrong_content_is_removed_and_said(server, path):
    server.data = b"<html>log in first</html>"
    with pytest.raises(IntegrityError, match="is not the published file") as error:
        fetch(server.url, path, sha256=SHA[:8])
    text = message_of(error)
    assert server.url in text
    assert SHA[:8] in text
    assert names(path) == []


def test_a_file_that_the_server_has_not_is_asked_for_once(server, path):
    with pytest.raises(DownloadError, match="HTTP 404 Not Found"):
        fetch(f"{server.address}/other.pth", path, sha256=SHA)
    assert len(server.seen) == 1
    assert names(path) == []


def test_without_network_one_line_names_file_url_and_folder(path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.pth"
        with pytest.raises(DownloadError) as error:
            fetch(url, path, sha256=SHA)
    assert message_of(error) == (
        f"file.pth: could not be downloaded from {url} (Connection refused). "
        f"On a machine without network put the file into {path.parent}"
    )
    assert error.value.exit_code == 69
    assert names(path) == []


def test_a_silent_server_is_not_waited_for_without_end(path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "TIMEOUT", 0.05)
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0))
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(DownloadError, match="no answer within"):
        fetch(f"http://127.0.0.1:{deaf.getsockname()[1]}/file.pth", path, sha256=SHA)


def test_redirects_are_followed_with_their_range(server, path):
    part_of(path, DATA[:1000])
    fetch(f"{server.address}/moved", path, sha256=SHA)
    assert server.seen == [("/moved", "bytes=1000-"), ("/file.pth", "bytes=1000-")]
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("source", "target", "followed"),
    [
        ("https://a.org/x", "https://b.org/x", True),
        ("http://a.org/x", "https://b.org/x", True),
        ("http://a.org/x", "http://b.org/x", True),
        ("https://a.org/x", "http://a.org/x", False),
        ("http://a.org/x", "ftp://a.org/x", False),
        ("http://a.org/x", "file:///etc/hostname", False),
    ],
)
def test_a_redirect_never_leaves_https(source, target, followed):
    (handler,) = [part for part in downloads._opener().handlers if isinstance(part, HTTPRedirectHandler)]
    ask = lambda: handler.redirect_request(Request(source), None, 302, "Found", {}, target)  # noqa: E731
    if followed:
        assert ask().full_url == target
    else:
        with pytest.raises(OSError, match="redirects to"):
            ask()


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://a.org/x", "vgg16.pth", ""])
def test_only_web_addresses_are_taken(url, path):
    with pytest.raises(UsageError, match="no http or https url"):
        fetch(url, path, sha256=SHA)


@pytest.mark.parametrize("sha256", ["", "3979", "xyzxyzxyz", SHA + "0"])
def test_a_hash_must_be_one(server, path, sha256):
    with pytest.raises(UsageError, match="8 to 64 hexadecimal digits"):
        fetch(server.url, path, sha256=sha256)
    assert server.seen == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_said(server, path):
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(SaveError, match="cannot be written") as error:
            fetch(server.url, path, sha256=SHA)
    finally:
        path.parent.chmod(0o700)
    assert "INTARSIA_CACHE" in message_of(error)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_refuses_is_said_for_root_too(server, path, monkeypatch, number):
    def refuse(self, *_, **__):
        raise OSError(number, os.strerror(number), str(self))

    path.parent.mkdir(parents=True)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SaveError, match=os.strerror(number)) as error:
        fetch(server.url, path, sha256=SHA)
    assert str(path) in message_of(error)


def test_a_folder_that_is_a_file_is_said(server, path):
    path.parent.parent.mkdir()
    path.parent.write_text("no folder")
    with pytest.raises(SaveError, match="cannot be written"):
        fetch(server.url, path, sha256=SHA)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said(server, path):
    path.parent.mkdir(parents=True)
    path.with_name("file.pth.part").symlink_to("/dev/full")
    with pytest.raises(SaveError, match=r"No space left on device.*Make room"):
        fetch(server.url, path, sha256=SHA)
    assert not path.exists()


def test_threads_at_once_make_one_request(server, path):
    server.pause = 0.02
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch(server.url, path, sha256=SHA), range(4)))
    assert found == [path] * 4
    assert path.read_bytes() == DATA
    assert names(path) == ["file.pth"]
    assert len(server.seen) == 1


def test_threads_at_once_on_wrong_content_all_say_so(server, path):
    server.data, server.pause = b"wrong", 0.02

    def attempt(_: int) -> str:
        with pytest.raises(IntegrityError) as error:
            fetch(server.url, path, sha256=SHA)
        return str(error.value)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(attempt, range(4)))) == 1
    assert names(path) == []


def start(server: Server, path: Path) -> "subprocess.Popen[str]":
    code = "import sys, pathlib; from intarsia.downloads import fetch\n"
    code += "fetch(sys.argv[1], pathlib.Path(sys.argv[2]), sha256=sys.argv[3])"
    words = [sys.executable, "-c", code, server.url, str(path), SHA]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_make_one_request(server, path):
    server.pause = 0.05
    for process in [start(server, path), start(server, path)]:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert path.read_bytes() == DATA
    assert names(path) == ["file.pth"]
    assert len(server.seen) == 1


def test_a_killed_download_is_gone_on_with(server, path):
    server.pause = 0.2
    part = path.with_name("file.pth.part")
    process = start(server, path)
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    had = part.stat().st_size
    assert 0 < had < len(DATA)
    server.pause = 0.0
    fetch(server.url, path, sha256=SHA)
    assert server.seen[-1] == ("/file.pth", f"bytes={had}-")
    assert path.read_bytes() == DATA


def test_progress_shows_megabytes(server, path):
    class Seen:
        def __init__(self):
            self.shares, self.texts, self.notes = [], [], []

        def note(self, text):
            self.notes.append(text)

        def task(self, label, total):
            self.total = total
            return self

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def update(self, done, text=""):
            self.shares.append(done / self.total)
            self.texts.append(text)

    seen = Seen()
    server.drops = [500_000]
    fetch(server.url, path, sha256=SHA, progress=seen)
    assert seen.shares == sorted(seen.shares)
    assert seen.shares[-1] == 1
    assert seen.texts[-1] == "1.0 of 1.0 MB"
    assert seen.notes == ["file.pth: the connection ended after 500000 of 1024000 bytes; trying again"]


def test_importing_it_brings_nothing_heavy():
    code = "import sys, intarsia.downloads\n"
    code += (
        "print([name for name in ('torch', 'numpy', 'urllib.request', 'http.client', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_list_weights_says_what_is_here_and_where(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "vgg16-397923af.pth").write_bytes(b"")

    def listed(*words: str) -> str:
        environment = os.environ | {"INTARSIA_CACHE": str(tmp_path)}
        command = [sys.executable, "-m", "intarsia", "list", "weights", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    lines = listed().splitlines()
    assert lines[-1] == f"folder: {folder}"
    (vgg,) = [line for line in lines if line.startswith("vgg16 ")]
    assert re.search(r"vgg16-397923af\.pth +here +ImageNet weights of VGG16\. BSD-3-Clause", vgg)
    assert any("fcn_resnet50_coco-1167a1af.pth" in line and "not here" in line for line in lines)
    (entry,) = json.loads(listed("vgg*", "--json"))
    assert entry["present"] is True
    assert entry["path"] == str(folder / "vgg16-397923af.pth")
