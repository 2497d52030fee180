"""The chain of a Matroska file's elements, on files made by hand: what is whole, what is broken, what is hostile."""

import io
import re

import pytest

from jaxvid.data import matroska
from jaxvid.data.matroska import what_is_wrong

UNKNOWN = b"\x01" + b"\xff" * 7


def element(name, content=b"", size=None):
    size = (1 << 56 | len(content)).to_bytes(8) if size is None else size
    return bytes.fromhex(name) + size + content


EBML = element("1a45dfa3", b"\x42\x82\x84webm")
TRACKS = element("1654ae6b", element("ae", element("d7", b"\x01") + element("83", b"\x01")))
BLOCK = element("a3", b"\x81\x00\x00\x80frame")
GROUP = element("a0", element("a1", b"\x81\x00\x00\x00frame") + element("9b", b"\x28") + element("fb", b"\x01"))
INSIDE = element("e7", b"\x00") + BLOCK + element("ec", bytes(9)) + GROUP
CLUSTER = element("1f43b675", INSIDE)
CUES = element("1c53bb6b", b"\x00" * 20)


def file(*parts, size=None):
    return EBML + element("18538067", b"".join(parts), size)


def wrong(data):
    return what_is_wrong(io.BytesIO(data))


@pytest.mark.parametrize(
    "data",
    [
        file(TRACKS, CLUSTER, CLUSTER, CUES),
        file(CUES, element("bf", bytes(4)), element("ec", bytes(300)), TRACKS, CLUSTER, element("1254c367", b"tags")),
        file(TRACKS, CLUSTER, size=UNKNOWN),
        file(TRACKS, element("1f43b675", INSIDE, UNKNOWN), element("1f43b675", INSIDE, UNKNOWN), CUES, size=UNKNOWN),
        file(TRACKS, element("1f43b675", INSIDE, b"\xff"), size=b"\xff"),
        file(TRACKS, CLUSTER) + b"junk behind",
        file(TRACKS, element("1f43b675", INSIDE, UNKNOWN), size=UNKNOWN) + file(TRACKS, CLUSTER),
        EBML + element("ec", bytes(5)) + file(TRACKS, CLUSTER)[len(EBML) :],
        file(TRACKS),
        file(TRACKS, CLUSTER, size=b"\x80"),
    ],
    ids=[
        "known",
        "front",
        "live",
        "live clusters",
        "short unknown",
        "junk",
        "two recordings",
        "void",
        "no cluster",
        "size 0",
    ],
)
def test_whole(data):
    assert wrong(data) is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (file(TRACKS, CLUSTER, bytes(30), CLUSTER), r"is damaged: byte \d+ must begin an element"),
        (file(TRACKS, element("a3", b"\x81")), "must begin an element of its segment"),
        (file(TRACKS, element("1f43b675", INSIDE + element("ae") + BLOCK)), "must begin an element of its cluster"),
        (file(TRACKS, element("1f43b675", element("a0", element("ae")))), "must begin an element of its group"),
        (file(element("1654ae6b", BLOCK)), "must begin an element of its list of tracks"),
        (file(TRACKS, element("1f43b675", BLOCK.replace(b"\x81", b"\x82"))), "belongs to none of its tracks"),
        (file(TRACKS, element("1f43b675", GROUP.replace(b"\x81", b"\x00"))), "belongs to none of its tracks"),
        (file(TRACKS, element("1f43b675", BLOCK[:1] + b"\xc0" + BLOCK[9:]) + CLUSTER), "must begin an element"),
        (file(TRACKS, CLUSTER)[:-3], r"is cut off: its headers promise at least \d+ bytes, received \d+"),
        (file(TRACKS, CLUSTER, size=UNKNOWN)[:-3], "is cut off"),
        (file(element("1654ae6b", b"", UNKNOWN)), "must begin an element"),
        (EBML + bytes(100), "must begin an element"),
        (EBML, "is cut off: it ends after 19 bytes, before its first frame"),
        (b"\x1a\x45\xdf\xa3", "must begin an element"),
        (file(TRACKS, element("1f43b675", b"", b"\x01" + b"\xff" * 6 + b"\xfe")), "damaged|cut off"),
    ],
)
def test_broken(data, says):
    assert re.search(says, wrong(data))


def test_every_header_counts():
    """No zeroed stretch of 12 bytes goes unnoticed; here each one touches a header."""
    data = file(TRACKS, *[CLUSTER] * 3)
    for at in range(len(EBML), len(data) - 12):
        assert wrong(data[:at] + bytes(12) + data[at + 12 :]) is not None, at


def test_hostile_files_take_bounded_time(monkeypatch):
    data = file(TRACKS, element("1f43b675", b"\xec\x80" * 5000))
    assert wrong(data) is None
    monkeypatch.setattr(matroska, "MAX_ELEMENTS", 100)
    walk = matroska._Walk(io.BytesIO(data))
    walk.document()
    assert walk._seen <= 101


def test_frames_are_not_read():
    class Counting(io.BytesIO):
        total = 0

        def read(self, size=-1):
            data = super().read(size)
            self.total += len(data)
            return data

    counting = Counting(file(TRACKS, *[element("1f43b675", element("a3", b"\x81\0\0\x80" + bytes(100_000)))] * 10))
    assert what_is_wrong(counting) is None
    assert counting.total < 1000
