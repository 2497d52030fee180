import hashlib
import json

import ml_dtypes
import numpy as np
import pytest

from jaxvid.train.checksums import describe, first_difference, seal, unseal


def test_digests_are_those_of_the_bytes_in_c_order():
    leaf = np.arange(6, dtype="<f4").reshape(2, 3)
    expected = {"dtype": "float32", "shape": [2, 3], "sha256": hashlib.sha256(leaf.tobytes()).hexdigest()}
    assert describe({"a": leaf}) == {"a": expected}
    assert describe({"a": np.asfortranarray(leaf)}) == {"a": expected}
    assert describe({"a": np.stack([leaf, leaf])[:, ::1][1]}) == {"a": expected}


def test_scalars_low_precision_and_many_leaves():
    leaves = {str(i): np.full((i,), i, ml_dtypes.bfloat16) for i in range(1, 40)} | {
        "step": np.int32(258),
        "no": np.zeros(0),
    }
    described = describe(leaves)
    assert list(described) == list(leaves)
    assert described["step"] == {"dtype": "int32", "shape": [], "sha256": hashlib.sha256(b"\x02\x01\0\0").hexdigest()}
    assert described["2"]["dtype"] == "bfloat16"
    assert described["2"]["sha256"] == hashlib.sha256(b"\x00\x40\x00\x40").hexdigest()
    assert described["no"]["sha256"] == hashlib.sha256(b"").hexdigest()
    assert first_difference(leaves, described) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.astype(np.float64), "the dtype of leaf 'b' is float64 and was float32 when it was saved"),
        (lambda x: x.reshape(4), r"the shape of leaf 'b' is [4] and was [2, 2] when it was saved"),
        (lambda x: x + np.float32(1e-7), "the sha256 of leaf 'b' is "),
        (lambda x: -x * 0, "the sha256 of leaf 'b' is "),
    ],
)
def test_the_first_changed_leaf_is_named(change, said):
    leaves = {"a": np.ones(3, np.int8), "b": np.ones((2, 2), np.float32)}
    described = describe(leaves)
    assert first_difference(leaves | {"b": change(leaves["b"])}, described).startswith(said)
    assert first_difference({"b": leaves["b"]}, described) == "leaf 'a' is missing"
    assert first_difference({}, described) == "leaf 'a' is missing and 1 more"


def test_a_sealed_record_survives_json_and_no_change():
    record = {"meta": {"loss": float("nan"), "x": 0.1, "names": ["ä", "b"], "n": None}, "step": 3}
    text = json.dumps(seal(record))
    back = unseal(json.loads(text))
    assert np.isnan(back["meta"].pop("loss"))
    record["meta"].pop("loss")
    assert back == record
    with pytest.raises(ValueError, match="does not have the sha256"):
        unseal(json.loads(text.replace('"step": 3', '"step": 4')))
    with pytest.raises(TypeError, match="not JSON serializable"):
        seal({"a": np.zeros(1)})


@pytest.mark.parametrize("other", [None, [], {}, {"sha256": "", "record": []}, {"sha256": "", "record": {}, "more": 1}])
def test_other_things_are_no_records(other):
    with pytest.raises(ValueError, match="not a record of jaxvid"):
        unseal(other)
