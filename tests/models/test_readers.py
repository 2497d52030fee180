"""Files of weights: every format gives the arrays that were written, and no hostile or damaged one does any harm."""

import io
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import flax.serialization
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvid.models.readers import StoredArray, WeightsFileError, read_arrays

GOLDEN = Path(__file__).parents[1] / "golden"
TORCH = ["torch_zip.pth", "torch_legacy.pth.tar"]

# What torch 2.13 was given to write both files; `transposed` and `part` are views of other tensors' data.
BASE = np.arange(24, dtype=np.float32).reshape(4, 6)
WRITTEN = {
    "f32": BASE,
    "transposed": BASE.T,
    "part": BASE[1:3, 2:5],
    "f16": np.array([[1.5, -2.25], [0.125, 65504.0]], np.float16),
    "bf16": np.array([1.0, -3.140625, 1e30], ml_dtypes.bfloat16),
    "f64": np.array([1 / 3]),
    "i64": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
    "flag": np.array([True, False]),
    "parameter": np.full((2, 2), 3.0, np.float32),
}
TREE = {"params": {"kernel": BASE, "bias": np.arange(3, dtype=np.float16)}, "step": 3}
FLAT = {"params.kernel": BASE, "params.bias": np.arange(3, dtype=np.float16)}


def assert_holds(arrays, expected):
    assert set(arrays) == set(expected)
    for key, array in arrays.items():
        assert isinstance(array, StoredArray)
        assert (array.shape, array.dtype, array.size) == (expected[key].shape, expected[key].dtype, expected[key].size)
        np.testing.assert_array_equal(np.asarray(array), expected[key], err_msg=key)
        np.testing.assert_array_equal(np.asarray(array), expected[key], err_msg=f"{key}, a second time")


@pytest.mark.parametrize("name", TORCH)
def test_torch(name):
    """Of a training checkpoint the weights are read, and neither the optimiser's state nor the epoch."""
    assert_holds(read_arrays(GOLDEN / name), WRITTEN)


def test_the_name_of_a_file_says_nothing(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes((GOLDEN / TORCH[0]).read_bytes())
    assert_holds(read_arrays(path), WRITTEN)


def test_what_is_not_compressed_stays_in_the_file():
    array = np.asarray(read_arrays(GOLDEN / TORCH[0])["f32"])
    while not isinstance(array, np.memmap):
        array = array.base
    assert array.filename is not None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    arrays = {"a|kernel": BASE.T, "fortran": np.asfortranarray(BASE), "swapped": BASE.astype(">f4"), "one": np.array(2)}
    save(tmp_path / "x.npz", **arrays)
    assert_holds(read_arrays(tmp_path / "x.npz"), arrays)


def test_safetensors(tmp_path):
    arrays = {name: np.ascontiguousarray(WRITTEN[name]) for name in ("f32", "f16", "bf16", "f64", "i64", "flag")}
    save_file(arrays, tmp_path / "x.safetensors")
    assert_holds(read_arrays(tmp_path / "x.safetensors"), arrays)


def test_msgpack(tmp_path):
    (tmp_path / "x.msgpack").write_bytes(flax.serialization.msgpack_serialize(TREE))
    assert_holds(read_arrays(tmp_path / "x.msgpack"), FLAT)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays(tmp_path, protocol):
    tree = OrderedDict(TREE, scalar=np.float32(2), swapped=BASE.astype(">f8"), fortran=[np.asfortranarray(BASE)])
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(tree, protocol))
    assert_holds(read_arrays(tmp_path / "x.ckpt"), FLAT | {"swapped": BASE.astype(">f8"), "fortran.0": BASE})


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state", "model_state_dict", "model"])
def test_wrappers(tmp_path, wrapper):
    tree = {"epoch": 1, wrapper: {"fc.weight": BASE}, "momentum": {"fc.weight": BASE}}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(tree))
    assert_holds(read_arrays(tmp_path / "x.pkl"), {"fc.weight": BASE})


class Hostile:
    """A pickle of this calls ``function`` when a careless program reads it."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _torch_zip(path, pickled):
    with zipfile.ZipFile(GOLDEN / TORCH[0]) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            new.writestr(info, pickled if info.filename.endswith("data.pkl") else old.read(info))


@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, __import__, np.load, pickle.loads, Path])
@pytest.mark.parametrize("packed", [True, False])
def test_hostile_pickles_are_refused_by_name(tmp_path, function, packed):
    mark = tmp_path / "executed"
    pickled = pickle.dumps({"weight": Hostile(function, f"touch {mark}")}, 2)
    path = tmp_path / "x.pth"
    if packed:
        _torch_zip(path, pickled)
    else:
        path.write_bytes(pickled)
    with pytest.raises(WeightsFileError, match=rf"x\.pth names '.*{function.__name__}', .* nothing was executed\.$"):
        read_arrays(path)
    assert not mark.exists()


def test_every_program_of_allowed_names_ends_in_arrays_or_an_error(tmp_path):
    """Whatever is done with the stand-ins: called, given a state, or put together wrongly."""
    names = ["torch._utils _rebuild_tensor_v2", "torch FloatStorage", "numpy dtype", "numpy.core.multiarray scalar",
             "numpy.core.multiarray _reconstruct", "collections OrderedDict", "torch Size", "torch device",
             "numpy ndarray", "torch float32"]  # fmt: skip
    path = tmp_path / "x.pkl"
    for name in names:
        module, attribute = name.split()
        for rest in (b")R.", b"(K\x01K\x02tR.", b")\x81.", b")R}X\x05\x00\x00\x00itemsK\x01sb.", b".", b")RN\x86b."):
            path.write_bytes(b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + rest)
            with pytest.raises(WeightsFileError):
                read_arrays(path)


def test_a_claim_of_many_memos_takes_no_memory(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(WeightsFileError, match="holds no array"):
        read_arrays(tmp_path / "x.pkl")


def test_containers_that_hold_themselves(tmp_path):
    tree = {}
    tree["self"] = tree
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(tree))
    with pytest.raises(WeightsFileError, match="more than 50 deep"):
        read_arrays(tmp_path / "x.pkl")


def _edited(change):
    """The pickle of torch's zip file with the arguments of its first tensor changed."""
    with zipfile.ZipFile(GOLDEN / TORCH[0]) as archive:
        pickled = archive.read("torch_zip/data.pkl")
    assert sum(op.name == "BINPERSID" for op, _, _ in pickletools.genops(pickled)) > 0
    return change(pickled)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"K\x04K\x06\x86", b"K\x04K\x07\x86", r"a tensor of shape \(4, 7\) reaches beyond its data"),
        (b"K\x18", b"K\x19", r"data/0 is missing or not as long as its tensors need"),
        (b"FloatStorage", b"FloetStorage", r"names 'torch.FloetStorage'"),
    ],
)
def test_tensors_that_reach_beyond_their_data(tmp_path, old, new, message):
    path = tmp_path / "x.pth"
    _torch_zip(path, _edited(lambda pickled: pickled.replace(old, new, 1)))
    with pytest.raises(WeightsFileError, match=message):
        read_arrays(path)


def _read_all(path):
    return [np.asarray(array) for array in read_arrays(path).values()]


@pytest.mark.parametrize("name", TORCH)
def test_every_truncation_is_refused(tmp_path, name):
    whole, path = (GOLDEN / name).read_bytes(), tmp_path / name
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsFileError, match=r"is (empty|truncated|damaged|a truncated|of no known|no whole)"):
            _read_all(path)


def test_a_flipped_bit_is_found(tmp_path):
    whole = bytearray((GOLDEN / TORCH[0]).read_bytes())
    whole[whole.find(BASE.tobytes()) + 5] ^= 1
    (tmp_path / "x.pth").write_bytes(whole)
    arrays = read_arrays(tmp_path / "x.pth")
    np.testing.assert_array_equal(arrays["f16"], WRITTEN["f16"])
    with pytest.raises(WeightsFileError, match=r"is damaged: torch_zip/data/0 is not as it was written\.$"):
        np.asarray(arrays["f32"])


def _npz(path, array, **options):
    np.savez(path, array, **options)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "is of no known format; known are torch zip"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: np.save(path.open("wb"), BASE), "is a single array without a name"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "holds no array"),
        (lambda path: path.write_bytes(pickle.dumps(BASE)), "holds a single array without a name"),
        (lambda path: path.write_bytes(pickle.dumps({"a": np.array([{}])})), "array of 'O8', and must hold numbers"),
        (lambda path: path.write_bytes(pickle.dumps({"a": {"b": BASE}, "a.b": BASE})), "two arrays of the name 'a.b'"),
        (lambda path: path.write_bytes(struct.pack("<Q", 1 << 40) + b"{" + b"x" * 30), "is no whole safetensors file"),
        (lambda path: np.savez(path.open("wb"), a=np.array([{}], object)), "array of object, and must hold numbers"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("readme.txt", "x"), "none of torch or NumPy"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, write, message):
    path = tmp_path / "weights"
    write(path)
    with pytest.raises(WeightsFileError, match=message) as caught:
        read_arrays(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_torchscript_program_is_no_file_of_weights(tmp_path):
    with zipfile.ZipFile(GOLDEN / TORCH[0]) as old, zipfile.ZipFile(tmp_path / "x.pt", "w") as new:
        for info in old.infolist():
            new.writestr(info, old.read(info))
        new.writestr("torch_zip/constants.pkl", b"")
    with pytest.raises(WeightsFileError, match="is a TorchScript program"):
        read_arrays(tmp_path / "x.pt")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "x.pth")


def test_a_legacy_file_of_another_machine(tmp_path):
    magic, rest = io.BytesIO((GOLDEN / TORCH[1]).read_bytes()), None
    first = [pickle.load(magic) for _ in range(3)]
    rest = magic.read()
    first[2]["little_endian"] = False
    (tmp_path / "x.pth").write_bytes(b"".join(pickle.dumps(part, 2) for part in first) + rest)
    with pytest.raises(WeightsFileError, match="was written on a big-endian machine"):
        read_arrays(tmp_path / "x.pth")
