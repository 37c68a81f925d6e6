"""Published weights: which ways `pretrained` names, what it says where there are none, and the first layer for n channels."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from intarsia import downloads
from intarsia.errors import ConfigError, DownloadError, FileError, IntegrityError
from intarsia.models import weights
from intarsia.models.weights import PUBLISHED, Published, adapt_first_layer, for_channels, read_weights, start_weights
from tests.test_downloads import Server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights, and no proxy between the tests and this machine."""
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "features.0.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "features.0.bias": torch.arange(4, dtype=torch.float16),
        "features.1.num_batches_tracked": torch.tensor(7),
    }


@pytest.fixture
def content(state: dict[str, torch.Tensor], tmp_path: Path) -> bytes:
    torch.save(state, tmp_path / "state.pth")
    return (tmp_path / "state.pth").read_bytes()


@pytest.fixture
def server(cache: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that holds the published file `tiny`."""
    server = Server()
    server.data = content
    publish(monkeypatch, server.url, content)
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def nowhere(cache: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The url of `tiny` on a machine that does not answer."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield publish(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}/file.pth", content)


def publish(monkeypatch: pytest.MonkeyPatch, url: str, content: bytes) -> str:
    digits = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setitem(PUBLISHED, "tiny", Published(url, digits, "tiny weights", "none"))
    return url


def put(cache: Path, content: bytes) -> None:
    cache.mkdir(parents=True)
    (cache / "file.pth").write_bytes(content)


@pytest.mark.parametrize("pretrained", ["auto", "download"])
def test_published_weights_are_downloaded_once(server, cache, state, pretrained):
    for _ in range(2):
        found, origin = start_weights("tiny", pretrained)
        assert origin == "tiny weights"
        assert found.keys() == state.keys()
        for key, value in state.items():
            assert torch.equal(found[key].double(), value.double())
    assert len(server.seen) == 1
    assert (cache / "file.pth").is_file()


def test_floats_become_float32_and_counts_stay_whole(server):
    found, _ = start_weights("tiny", "download")
    assert found["features.0.bias"].dtype == torch.float32
    assert found["features.1.num_batches_tracked"].dtype == torch.int64


def test_auto_without_network_starts_at_random_and_says_what_to_do(nowhere, cache):
    found, origin = start_weights("tiny", "auto")
    assert found is None
    assert origin == f"random weights: no published weights at hand (put file.pth into {cache})"


def test_auto_goes_on_where_the_host_answers_but_gives_no_file(server, cache):
    server.statuses = [403]
    found, origin = start_weights("tiny", "auto")
    assert found is None
    assert origin.startswith("random weights: file.pth: could not be downloaded")
    assert "HTTP 403" in origin
    assert len(origin.splitlines()) == 1


@pytest.mark.parametrize("pretrained", ["auto", "download"])
def test_a_file_put_there_by_hand_needs_no_network(nowhere, cache, content, pretrained):
    put(cache, content)
    found, origin = start_weights("tiny", pretrained)
    assert origin == "tiny weights"
    assert "features.0.weight" in found


@pytest.mark.parametrize("pretrained", ["auto", "download"])
def test_a_wrong_file_is_never_taken(nowhere, cache, pretrained):
    put(cache, b"another file")
    with pytest.raises(IntegrityError, match="Delete it"):
        start_weights("tiny", pretrained)


def test_download_without_network_names_file_url_and_folder(nowhere, cache):
    with pytest.raises(DownloadError) as error:
        start_weights("tiny", "download")
    for word in ("file.pth", nowhere, str(cache)):
        assert word in str(error.value)


def test_none_looks_for_nothing(server, cache, content):
    put(cache, content)
    assert start_weights("tiny", "none") == (None, "random weights")
    assert server.seen == []


def test_a_path_is_taken_from_anywhere(nowhere, content, state, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "mine.pth").write_bytes(content)
    save_file(state, tmp_path / "mine.safetensors")
    for name in ("mine.pth", "mine.safetensors"):
        found, origin = start_weights("tiny", str(tmp_path / name))
        assert origin == f"weights of {name}"
        assert torch.equal(found["features.0.weight"], state["features.0.weight"])


def test_a_path_that_is_not_there_is_met_with_the_ways_there_are(nowhere, tmp_path):
    with pytest.raises(ConfigError, match=r"must be auto, none, download or a file that exists, got '.*gone\.pth'"):
        start_weights("tiny", str(tmp_path / "gone.pth"))


def test_weights_that_cannot_fit(server):
    assert start_weights("tiny", "auto", fits=False) == (None, "random weights")
    assert start_weights("tiny", "none", fits=False) == (None, "random weights")
    for pretrained in ("download", "some/file.pth"):
        with pytest.raises(ConfigError, match="tiny weights do not fit"):
            start_weights("tiny", pretrained, fits=False)
    assert server.seen == []


class Harmful:
    """A pickle that would make a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


def test_a_file_is_read_but_never_executed(tmp_path):
    torch.save({"weight": Harmful(tmp_path / "made")}, tmp_path / "bad.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("bad.pth", "text.pth"):
        with pytest.raises(FileError, match="cannot be read as weights"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "made").exists()


def test_a_proxy_is_what_must_answer_where_there_is_one(cache, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert weights.host_answers("https://weights.invalid/file.pth")
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{closed.getsockname()[1]}")
        assert not weights.host_answers("https://weights.invalid/file.pth")


def test_every_published_file_has_an_https_url_and_its_hash_in_its_name():
    for known in PUBLISHED.values():
        assert known.url.startswith("https://")
        assert len(known.sha256) == 8
        assert known.sha256 in known.file_name
        assert known.licence


@pytest.fixture
def first() -> tuple[torch.Tensor, torch.Tensor]:
    """A published first layer for RGB, and the random one that stands there before."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 3, 3, 3, generator=generator), torch.randn(5, 3, 3, 3, generator=generator)


def test_a_grey_image_gives_what_its_rgb_copy_gave(first):
    weight, start = first
    grey = torch.randn(2, 1, 9, 8, generator=torch.Generator().manual_seed(2))
    adapted = adapt_first_layer(weight, 1, "adapt", start=start[:, :1])
    assert adapted.shape == (5, 1, 3, 3)
    torch.testing.assert_close(F.conv2d(grey, adapted), F.conv2d(grey.expand(-1, 3, -1, -1), weight))


@pytest.mark.parametrize("channels", [2, 4, 6, 7])
def test_more_channels_repeat_rgb_scaled_by_3_over_n(first, channels):
    weight, _ = first
    adapted = adapt_first_layer(weight, channels, "adapt", start=torch.zeros(5, channels, 3, 3))
    assert adapted.shape == (5, channels, 3, 3)
    for channel in range(channels):
        torch.testing.assert_close(adapted[:, channel], weight[:, channel % 3] * 3 / channels)


def test_six_channels_of_rgb_twice_give_what_rgb_gave(first):
    weight, _ = first
    image = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    adapted = adapt_first_layer(weight, 6, "adapt", start=torch.zeros(5, 6, 3, 3))
    torch.testing.assert_close(F.conv2d(image.repeat(1, 2, 1, 1), adapted), F.conv2d(image, weight))


@pytest.mark.parametrize("channels", [1, 4])
def test_fresh_keeps_the_random_weights_as_a_copy(first, channels):
    start = torch.randn(5, channels, 3, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()
    fresh = adapt_first_layer(first[0], channels, "fresh", start=start)
    assert torch.equal(fresh, start)
    assert fresh.data_ptr() != start.data_ptr()
    assert not fresh.requires_grad


@pytest.mark.parametrize("how", ["adapt", "fresh"])
def test_three_channels_stay_as_published(first, how):
    weight, start = first
    assert torch.equal(adapt_first_layer(weight, 3, how, start=start), weight)


def test_statistics_for_other_channels_are_their_mean():
    assert for_channels((0.4, 0.5, 0.6), 3) == (0.4, 0.5, 0.6)
    assert for_channels((0.4, 0.5, 0.6), 1) == pytest.approx((0.5,))
    assert for_channels((0.4, 0.5, 0.6), 5) == pytest.approx((0.5,) * 5)
