"""Images are videos of one frame: the same pixels as another decoder's, turned as they ask, and never a part of one."""

import io
import random
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxvid.data.clips import EvalClips, TrainClips, load_clip, load_views
from jaxvid.data.container import MAX_PIXELS
from jaxvid.data.decode import VideoReader
from jaxvid.data.orientation import Turn
from jaxvid.data.records import BadVideoError, VideoRecord

SIZE = (37, 50)  # height, width; odd
LOSSLESS = {
    "png": ("RGB", {"format": "png"}),
    "png, grey": ("L", {"format": "png"}),
    "png, 1 bit": ("1", {"format": "png"}),
    "png, palette": ("P", {"format": "png"}),
    "bmp": ("RGB", {"format": "bmp"}),
    "bmp, grey": ("L", {"format": "bmp"}),
    "webp, lossless": ("RGB", {"format": "webp", "lossless": True}),
}
LOSSY = {
    "jpeg": ("RGB", {"format": "jpeg", "quality": 95}),
    "jpeg, progressive": ("RGB", {"format": "jpeg", "quality": 90, "progressive": True}),
    "jpeg, 4:4:4": ("RGB", {"format": "jpeg", "quality": 90, "subsampling": 0}),
    "jpeg, restarts": ("RGB", {"format": "jpeg", "quality": 90, "restart_marker_blocks": 3}),
    "jpeg, grey": ("L", {"format": "jpeg", "quality": 90}),
    "jpeg, CMYK": ("CMYK", {"format": "jpeg", "quality": 95}),
    "webp": ("RGB", {"format": "webp", "quality": 90}),
}


def photo(seed=0, size=SIZE):
    """Smooth colours: uint8[H W 3]."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


def encoded(mode, options, seed=0, size=SIZE):
    file = io.BytesIO()
    Image.fromarray(photo(seed, size)).convert(mode).save(file, **options)
    return file.getvalue()


def decoded(data):
    with VideoReader(data) as reader:
        assert len(reader) == 1
        (picture,) = reader.read([0])
        assert picture.shape == (reader.height, reader.width, 3)
        return picture


def reference(data):
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_pixels(kind):
    data = encoded(*LOSSLESS[kind])
    np.testing.assert_array_equal(decoded(data), reference(data))


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_pixels_are_near_those_of_another_decoder(kind):
    """Decoders differ in how they enlarge colour, which is stored at half size: the smoother, the nearer."""
    data = encoded(*LOSSY[kind], size=(150, 200))
    difference = np.abs(decoded(data).astype(float) - reference(data))
    assert difference.mean() < 2
    assert difference.max() <= 11


def chunk(kind, content):
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(rows, size, bits, color, *, packed=None, before=()):
    """A PNG file of rows of bytes, each of which is preceded by a filter's number."""
    height, width = size
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, color, 0, 0, 0])
    packed = zlib.compress(b"".join(b"\0" + row for row in rows)) if packed is None else packed
    parts = [(b"IHDR", header), *before, (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(("channels", "color"), [(1, 0), (3, 2), (2, 4), (4, 6)])
@pytest.mark.parametrize("bits", [8, 16])
def test_transparency_is_dropped_and_16_bits_are_scaled(channels, color, bits):
    values = np.random.default_rng(0).integers(0, 2**bits, (*SIZE, channels)).astype(f">u{bits // 8}")
    picture = decoded(png([row.tobytes() for row in values], SIZE, bits, color))
    expected = values[..., :1] if channels < 3 else values[..., :3]
    scale = 1 if bits == 8 else 257
    assert np.abs(picture - expected / scale).max() <= (0 if bits == 8 else 2)


def test_interlaced_rows():
    """Adam7, written by hand: each pass is a small picture of every 8th, 4th or 2nd pixel."""
    values = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [b"\0" + row.tobytes() for y, x, dy, dx in steps for row in values[y::dy, x::dx]]
    data = bytearray(png([], SIZE, 8, 0, packed=zlib.compress(b"".join(rows))))
    data[28] = 1
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    np.testing.assert_array_equal(decoded(bytes(data))[..., 0], values)
    short = bytearray(data)
    short[33:] = chunk(b"IDAT", zlib.compress(b"".join(rows[:-1]))) + chunk(b"IEND", b"")
    refused(bytes(short), rf"is cut off: its rows take {len(b''.join(rows))} bytes, received")


ORIENTED = {"jpeg": {"quality": 95, "subsampling": 0}, "png": {}, "webp": {"lossless": True}}


@pytest.mark.parametrize("kind", ORIENTED)
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = orientation
    data = encoded("RGB", {"format": kind, "exif": exif, **ORIENTED[kind]})
    expected = reference(data)
    assert expected.shape[:2] == (SIZE[::-1] if 5 <= orientation <= 8 else SIZE)
    assert np.abs(decoded(data).astype(int) - expected).max() <= (3 if kind == "jpeg" else 0)
    with VideoReader(data) as reader:
        small = reader.read([0], short_side=20)
    assert small.shape[1:] == ((27, 20, 3) if 5 <= orientation <= 8 else (20, 27, 3))


def test_an_orientation_in_either_byte_order_and_none_in_damaged_blocks():
    for order, mark in (("little", b"II*\0"), ("big", b"MM\0*")):
        number = [(8, 4), (1, 2), (0x0112, 2), (3, 2), (1, 4), (6, 2)]
        block = mark + b"".join(value.to_bytes(size, order) for value, size in number) + bytes(2)
        assert Turn.of_exif(block) == Turn(transpose=True, flip_columns=True)
        assert {Turn.of_exif(block[:end]) for end in range(len(block))} == {Turn()}
    assert Turn.of_exif(b"II*\0\xff\xff\xff\xff") == Turn.of_exif(b"") == Turn()


def attempt(data):
    """The picture, ``None`` where it is refused; anything but a sentence fails the test."""
    try:
        return decoded(data)
    except BadVideoError as caught:
        error = str(caught)
    assert error.endswith(".")
    assert "\n" not in error
    return None


def refused(data, match, video=None):
    with pytest.raises(BadVideoError, match=match) as caught:
        decoded(data if video is None else video)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_a_file_that_is_cut_anywhere_is_refused(kind):
    data = encoded(*{**LOSSLESS, **LOSSY}[kind])
    for end in {*range(20), *range(20, len(data), max(1, len(data) // 60)), *range(len(data) - 12, len(data))}:
        refused(data[:end], r"is cut off|is damaged|must not be empty|is not a video in a known container or an image")


@pytest.mark.parametrize("kind", ["jpeg", "jpeg, restarts", "jpeg, grey"])
def test_a_scan_that_was_cut_and_ended_is_refused(kind):
    data = encoded(*LOSSY[kind], size=(150, 200))
    first = data.index(b"\xff\xda") + 20
    for end in range(first, len(data) - 100, 97):
        refused(data[:end].rstrip(b"\xff") + b"\xff\xd9", "is damaged in its only picture: ")


@pytest.mark.parametrize("kind", ["png", "png, grey", "png, palette"])
def test_any_damaged_byte_of_a_png_is_noticed(kind):
    data, rng = encoded(*LOSSLESS[kind]), random.Random(0)
    for at in {*range(8, 60), *range(60, len(data), max(1, len(data) // 100)), *range(len(data) - 14, len(data))}:
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << rng.randrange(8)
        refused(bytes(spoilt), r"is damaged: the checksum of its bytes|is cut off: its headers promise")


@pytest.mark.parametrize("how", ["zeros", "noise"])
@pytest.mark.parametrize(("kind", "least"), [("jpeg", 0.4), ("jpeg, progressive", 0.7), ("jpeg, restarts", 0.3)])
def test_damage_in_the_middle_of_a_jpeg_is_noticed_as_often_as_stated(kind, least, how):
    file, rng = io.BytesIO(), random.Random(0)
    grain = np.random.default_rng(0).integers(-25, 26, (150, 200, 3))
    picture = np.clip(photo(1, (150, 200)) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(file, **LOSSY[kind][1])
    data, noticed = file.getvalue(), 0
    for _ in range(40):
        at, spoilt = rng.randrange(700, len(data) - 66), bytearray(data)
        spoilt[at : at + 64] = bytes(64) if how == "zeros" else rng.randbytes(64)
        noticed += attempt(bytes(spoilt)) is None
    assert noticed >= 40 * least


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_whatever_is_damaged_there_is_a_picture_or_one_sentence(kind):
    data, rng = encoded(*{**LOSSLESS, **LOSSY}[kind]), random.Random(kind)
    for _ in range(60):
        spoilt = bytearray(data)
        at = rng.randrange(len(data))
        spoilt[at : at + rng.choice((1, 4))] = rng.randbytes(4)
        attempt(bytes(spoilt))


ROW = bytes(SIZE[1])


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (png([ROW] * 36, SIZE, 8, 0), "is cut off: its rows take 1887 bytes, received 1836"),
        (png([], SIZE, 8, 0, packed=b"no rows"), "is damaged: its rows cannot be unpacked"),
        (png([ROW] * 37, SIZE, 8, 5), "is damaged: a PNG must begin with a header of its size"),
        (png([ROW] * 37, SIZE, 8, 0)[:33] + chunk(b"IEND", b""), "is cut off: its rows take 1887 bytes, received 0"),
        (png([], (9000, 9000), 8, 0), rf"must have 1 to {MAX_PIXELS} pixels, received 9000 x 9000"),
        (png([], (0, 5), 8, 0), "must have 1 to .* pixels, received 5 x 0"),
        (png([ROW] * 37, SIZE, 8, 0, before=[(b"acTL", bytes(8))]), "is an animated PNG; of animations only GIF"),
        (b"\xff\xd8\xff\xd9", "is damaged: it holds no scan of a picture"),
        (b"\xff\xd8\xff\xe0\x00\x00" + bytes(20), "is damaged: byte 2 must begin a segment"),
        (b"\xff\xd8\xff\xe0\x00\x04" + bytes(20), "is damaged: byte 8 must begin a marker"),
        (b"RIFF\x0c\0\0\0WEBPVP8X\x40\0\0\0", "is damaged: the chunk at byte 12 ends behind the file's end"),
        (b"RIFF\x0c\0\0\0WEBPANIM\0\0\0\0", "is an animated WebP; of animations only GIF and video files are read"),
        (b"RIFF\x04\0\0\0WEBP" + bytes(20), "is damaged: it holds no picture with the header of a WebP"),
        (b"BM" + bytes(28) + b"\1" + bytes(60), "must be a BMP without compression, received compression 1"),
    ],
)  # fmt: skip
def test_what_is_refused(data, match):
    refused(data, match)


def test_what_is_behind_the_picture_is_left_alone():
    """Phones append a second picture to a JPEG; editors leave bytes behind the end of a PNG."""
    for kind in ("jpeg", "png"):
        data = encoded(*{**LOSSLESS, **LOSSY}[kind])
        np.testing.assert_array_equal(decoded(data + encoded("RGB", {"format": "jpeg"}, seed=1)), decoded(data))


def test_metadata_that_cannot_be_read_is_no_damage():
    data = encoded("RGB", {"format": "jpeg", "quality": 95})
    wrong = b"\xff\xe1\x00\x10Exif\0\0" + b"\xff" * 8 + b"\xff\xe2\x00\x10ICC_PROFILE\0\xff\xff"
    np.testing.assert_array_equal(decoded(data[:2] + wrong + data[2:]), decoded(data))
    data = encoded("RGB", {"format": "png"})
    wrong = chunk(b"iCCP", b"wrong") + chunk(b"tEXt", b"")
    np.testing.assert_array_equal(decoded(data[:33] + wrong + data[33:]), decoded(data))


def test_a_file_is_what_its_first_bytes_say(tmp_path):
    """Half of the world's .png are JPEGs; the name decides nothing, and a damaged file is named by its path."""
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(*LOSSY["jpeg"]))
    assert np.abs(decoded(path).astype(int) - reference(path.read_bytes())).mean() < 10
    path.write_bytes(path.read_bytes()[:-300])
    assert refused(None, "is cut off: it ends after", path).startswith(str(path))
    path.write_bytes(b"nothing")
    refused(None, "is not a video in a known container or an image, or its header is damaged", path)


def test_a_video_of_one_frame():
    data = encoded(*LOSSLESS["png"])
    with VideoReader(data) as reader:
        assert (reader.num_frames, reader.fps, reader.duration) == (1, 0, 0)
        assert reader.times.tolist() == [0]
        assert (reader.height, reader.width) == SIZE
        assert reader.nbytes(1) == reader.read([0]).nbytes
        np.testing.assert_array_equal(reader.read([0, 0])[1], reader.read([0])[0], err_msg="read twice, held twice")
    with pytest.raises(BadVideoError, match=r"has no frame between 1 s and inf s"):
        VideoReader(data, start=1.0)
    with VideoReader(data, end=0.5) as reader:
        assert len(reader) == 1


def test_clips_and_views_of_an_image():
    record = VideoRecord(0, 3, encoded(*LOSSLESS["png"], size=(40, 60)), "a.png")
    clips = TrainClips(1, 1, "random", (32, 36), 32, flip=True)
    pictures = [load_clip(record, clips, seed=0, epoch=epoch) for epoch in range(8)]
    assert {video.shape for video, _ in pictures} == {(1, 32, 32, 3)}
    assert {label for _, label in pictures} == {3}
    assert len({video.tobytes() for video, _ in pictures}) == 8, "short side, corner and flip differ"
    views = load_views(record, EvalClips(1, 1, 1, 3, 32, 32))
    assert views.shape == (3, 1, 32, 32, 3)
