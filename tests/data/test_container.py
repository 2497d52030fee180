"""What is no video, no whole video or no harmless file is refused with one sentence that names it."""

import io
import os
import pickle
import struct
import wave

import av
import numpy as np
import pytest

from jaxvid.data import container as module
from jaxvid.data.decode import VideoReader
from jaxvid.data.records import BadVideoError

GOP12 = {"g": 12, "bf": 3}
CONTAINERS = {
    "mp4": {"container": "mp4", **GOP12},
    "mp4 faststart": {"container": "mp4", "mux": {"movflags": "faststart"}, **GOP12},
    "mov fragments": {"container": "mov", "mux": {"movflags": "frag_keyframe+empty_moov"}, **GOP12},
    "avi": {"container": "avi", "codec": "mpeg4", "g": 12},
    "mkv": {"container": "matroska", **GOP12},
    "webm": {"container": "webm", "codec": "libvpx-vp9", "cpu-used": 8},
}


def refused(video, match):
    """The error of opening and reading everything; its message is one sentence that begins with the file's name."""
    with pytest.raises(BadVideoError, match=match) as caught, VideoReader(video) as reader:
        reader.read(range(len(reader)), short_side=16)
    error = caught.value
    message = str(error)
    assert message.endswith(".")
    assert "\n" not in message
    name = f"<{len(video)} bytes>" if isinstance(video, bytes) else str(video)
    assert message.startswith(name)
    assert error.path == name
    return error


def test_missing_file(tmp_path):
    refused(tmp_path / "none.mp4", "cannot be opened: No such file or directory")


def test_folder(tmp_path):
    refused(tmp_path, "must be a file, received a folder")


def test_empty_file_and_empty_bytes(tmp_path):
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "must not be empty")
    refused(b"", "must not be empty")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path, encode):
    path = tmp_path / "secret.mp4"
    path.write_bytes(encode(2))
    path.chmod(0)
    refused(path, "Permission denied")


def test_error_of_the_system_while_opening(tmp_path, encode, monkeypatch):
    path = tmp_path / "secret.mp4"
    path.write_bytes(encode(2))

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    error = None
    try:
        VideoReader(path)
    except BadVideoError as caught:
        error = caught
    monkeypatch.undo()
    assert str(error) == f"{path} cannot be opened: Permission denied."


def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(tmp_path / "pipe.mp4", "must be a regular file")


@pytest.mark.parametrize(
    "content",
    [
        b"hello, this is no video\n" * 100,
        bytes(10_000),
        np.random.default_rng(0).bytes(50_000),
        b"\x00",
        b"RIFF",
        b"\x1a\x45\xdf\xa3",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"ID3\x03\x00" + bytes(5000),
        b"<html><video src='a.mp4'/></html>",
    ],
    ids=["text", "zeros", "noise", "one byte", "riff", "ebml", "png", "id3", "html"],
)
def test_no_video(content, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    refused(path, "is not a video in a known container, or its header is damaged|holds no|cannot be read|is damaged")
    refused(content, "is not a video in a known container, or its header is damaged|holds no|cannot be read|is damaged")


def test_audio_only(tmp_path):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16000)
        for k in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * k
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    refused(file.getvalue(), "holds no video stream")
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    refused(tmp_path / "a.wav", "known container")


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
def test_a_header_without_frames(kind, tmp_path):
    path = tmp_path / "clip"
    with av.open(str(path), "w", format=kind) as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        output.start_encoding()
    refused(path, "holds no|known container")


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_file_that_is_cut_off(name, share, encode, numbers):
    data = encode(60, **CONTAINERS[name])
    if share == 0.99 and name in ("avi", "mov fragments"):  # only the index at the end is cut off, no frame
        with VideoReader(data[: int(share * len(data))]) as reader:
            assert numbers(reader.read(range(60))) == list(range(60))
        return
    refused(
        data[: int(share * len(data))],
        r"is cut off: its headers promise at least \d+ bytes|header is damaged|is damaged",
    )


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_whole_file_is_not_called_cut_off_and_neither_is_one_with_bytes_behind_it(name, encode):
    data = encode(20, **CONTAINERS[name])
    for whole in (data, data + bytes(300), data + b"junk behind"):
        with VideoReader(whole) as reader:
            assert reader.read(range(20), short_side=16).shape[0] == 20


@pytest.fixture(scope="module")
def piped(encode, tmp_path_factory):
    """``piped(container, codec)``: a video that was written to a pipe, so that its headers could not be completed."""

    class Pipe:
        def __init__(self):
            self.data = b""

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    def piped(container, codec):
        pipe = Pipe()
        with av.open(pipe, "w", format=container) as output:
            stream = output.add_stream(codec, rate=25, options={"g": "12"})
            stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
            for k in range(30):
                picture = np.full((64, 80, 3), 8 * k, np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode())
        return pipe.data

    return piped


@pytest.mark.parametrize(
    ("container", "codec"),
    [("matroska", "libx264"), ("matroska", "libvpx"), ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("avi", "mpeg4")],
)
def test_what_was_written_to_a_pipe_is_whole(container, codec, piped):
    data = piped(container, codec)
    with VideoReader(data) as reader:
        assert len(reader.read(range(30))) == 30


@pytest.mark.data
def test_real_files_keep_their_headers_promise(shared):
    paths = [*shared("data", "decode_samples").iterdir(), *shared("data", "ut_interaction").glob("*/*.avi")]
    for path in paths:
        if path.suffix != ".md":
            module.open_container(path).close()


def test_64_bit_boxes_and_open_ends(encode):
    data = encode(5)
    at = data.index(b"mdat") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    assert data[at - 8 + 4 : at] == b"free", "the muxer keeps eight bytes for a long size"
    long = data[: at - 8] + struct.pack(">I4sQ", 1, b"mdat", length + 8) + data[at + 8 :]
    with VideoReader(long) as reader:
        assert len(reader) == 5
    file = io.BytesIO(long[:-1])
    assert module._end_of_mp4(file, len(long) - 1) in (len(long) - 1, len(long))
    assert module._end_of_mp4(io.BytesIO(bytes(4) + b"mdat" + bytes(90)), 98) == 98, "size 0: to the end"
    assert module._end_of_mp4(io.BytesIO(struct.pack(">I4sQ", 1, b"mdat", 1 << 40)), 16) == 1 << 40


def test_a_frame_of_absurd_size_is_refused_before_it_is_allocated(encode, monkeypatch):
    data = encode(3, container="avi", codec="mpeg4")
    at = data.index(b"strf") + 12
    assert struct.unpack("<ii", data[at : at + 8]) == (80, 64)
    absurd = data[:at] + struct.pack("<ii", 1_000_000, 1_000_000) + data[at + 8 :]
    error = None
    try:
        with VideoReader(absurd) as reader:  # the stream itself says 64 x 80, and the decoder believes the stream
            assert reader.read([0]).shape == (1, 64, 80, 3)
    except BadVideoError as caught:
        error = caught
    assert error is None or "pixels" in str(error) or "header" in str(error)
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 80 - 1)
    refused(data, r"must have frames of 1 to 5119 pixels, received none, or more\.$")


def test_a_stream_larger_than_the_limit_is_refused(encode):
    """A raw H.264 header that says 16384 x 16384; the decoder itself has the limit, and allocates nothing."""
    with av.open(io.BytesIO(encode(1, container="h264"))) as probe:
        assert (probe.streams.video[0].width, probe.streams.video[0].height) == (80, 64)
    data = encode(1, container="h264", size=(4400, 8200), preset="ultrafast")
    refused(data, "must have frames of 1 to|is damaged|known container|holds no|cannot be read")


@pytest.mark.parametrize(
    "name",
    ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "file:clip.mp4", "data:video/mp4;base64,AAAA", "pipe:0", "-"],
)
def test_names_with_a_protocol_are_names_of_files(name, tmp_path, monkeypatch, encode):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(encode(2))
    refused(name, "cannot be opened: No such file or directory")


@pytest.mark.parametrize("ending", ["mp4", "m3u8", "txt", "mpd", "sdp"])
def test_files_that_point_to_other_files_open_nothing(ending, tmp_path, encode):
    secret = tmp_path / "secret.ts"
    secret.write_bytes(encode(12, container="mpegts"))
    contents = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {secret}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        f'<Representation id="1" mimeType="video/mp4"><BaseURL>{secret}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
    ]  # fmt: skip
    for content in contents:
        path = tmp_path / f"playlist.{ending}"
        path.write_text(content)
        refused(path, "known container")
        refused(content.encode(), "known container")


def test_text_that_is_not_utf8(encode, tmp_path):
    """HMDB-51 has such files: the container's title holds bytes that are no UTF-8."""
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as output:
        output.metadata["title"] = "name: XXXX"
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 80, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode())
    data = file.getvalue().replace(b"XXXX", b"\xff\xfe\xc3\xe9")
    assert b"\xff\xfe" in data
    with VideoReader(data) as reader:
        assert reader.read([0]).shape == (1, 64, 80, 3)
    path = tmp_path / os.fsdecode(b"caf\xe9.avi")
    path.write_bytes(data)
    with VideoReader(path) as reader:
        assert len(reader) == 1


def test_cover_pictures_are_no_video(encode):
    stream = type("Stream", (), {})
    cover, film = stream(), stream()
    cover.disposition, film.disposition = module.Disposition.attached_pic, module.Disposition.default
    container = type("Container", (), {})()
    container.streams = type("Streams", (), {"video": [cover, film]})
    assert module.video_stream(container) is film
    container.streams.video = [cover]
    assert module.video_stream(container) is None


def test_the_error_survives_pickling(tmp_path):
    error = refused(tmp_path / "none.mp4", "No such file")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path, copy.frame) == (str(error), error.path, error.frame)


def test_files_are_closed(encode, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode(5))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(5):
        with VideoReader(path) as reader:
            reader.read([1])
        refused(broken, "known container")
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 1
