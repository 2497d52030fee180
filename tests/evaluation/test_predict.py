"""Every clip exactly once, views averaged after the softmax, on one device, on eight, and on two processes."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvid.evaluation import Predictions, evaluate, mean_scores, predict_batches

K, V, T, H, W = 3, 2, 2, 4, 5


def apply(variables, video):
    """A linear classifier on the mean colour: written out in NumPy by `expected_logits`."""
    return (video.astype(jnp.float32) / 255).mean(axis=(1, 2, 3)) @ variables["params"]["kernel"]


@pytest.fixture
def variables():
    return {"params": {"kernel": np.random.default_rng(1).normal(size=(3, K)).astype(np.float32) * 20}}


def clips(n, seed=0, views=V):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, views, T, H, W, 3), np.uint8), rng.integers(0, K, n).astype(np.int32)


def batches(video, label, *, size, undecodable=(), order=None):
    """Cuts clips into batches of `size`; the last one is padded."""
    order = np.arange(len(video)) if order is None else np.asarray(order)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        padding = size - len(rows)
        mask = np.array([i not in undecodable for i in rows] + [False] * padding)
        yield {
            "video": np.concatenate([video[rows], np.zeros((padding, *video.shape[1:]), np.uint8)]),
            "label": np.concatenate([label[rows], np.zeros(padding, np.int32)]),
            "id": np.concatenate([rows, np.full(padding, -1)]).astype(np.int32),
            "mask": mask,
        }


def expected_logits(variables, video):
    return (video.astype(np.float64) / 255).mean(axis=(2, 3, 4)) @ variables["params"]["kernel"].astype(np.float64)


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def same(a: Predictions, b: Predictions, atol=0.0):
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.decoded, b.decoded)
    np.testing.assert_allclose(a.logits, b.logits, atol=atol, rtol=0)
    np.testing.assert_allclose(a.scores, b.scores, atol=atol, rtol=0)


def test_batches_come_one_by_one_without_padding_and_one_ahead(variables):
    video, label = clips(7)
    taken = []

    def noted():
        for batch in batches(video, label, size=3, undecodable=(4,), order=[6, 1, 2, 0, 4, 5, 3]):
            taken.append(batch["id"].tolist())
            yield batch

    parts = predict_batches(apply, variables, noted(), num_classes=K)
    first = next(parts)
    assert taken == [[6, 1, 2], [0, 4, 5]], "the next one is on the device"
    second, third = parts
    assert [part.ids.tolist() for part in (first, second, third)] == [[6, 1, 2], [0, 4, 5], [3]]
    assert second.decoded.tolist() == [True, False, True]
    expected = expected_logits(variables, video)
    np.testing.assert_allclose(first.logits, expected[[6, 1, 2]], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(second.logits[1], np.zeros((V, K)))


@pytest.mark.parametrize("views", [1, 2, 5])
def test_values_by_hand(variables, views):
    video, label = clips(7, views=views)
    found = evaluate(apply, variables, batches(video, label, size=3), num_classes=K, num_clips=7)
    logits = expected_logits(variables, video)
    assert found.ids.tolist() == list(range(7))
    assert found.labels.tolist() == label.tolist()
    assert found.decoded.all()
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.scores, softmax(logits).mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.view_scores, softmax(logits), rtol=1e-5, atol=1e-6)
    assert found.scores.dtype == found.logits.dtype == np.float32
    assert len(found) == 7


def test_scores_are_not_the_softmax_of_the_mean_logits():
    logits = np.array([[[0.0, 0.0], [0.0, 10.0]]], np.float32)
    half = (0.5 + 1 / (1 + np.exp(10.0))) / 2
    np.testing.assert_allclose(mean_scores(logits), [[half, 1 - half]], rtol=1e-6)


def test_the_order_and_the_size_of_the_batches_do_not_matter(variables):
    video, label = clips(11)
    whole = evaluate(apply, variables, batches(video, label, size=11), num_classes=K)
    order = np.random.default_rng(3).permutation(11)
    for size in (1, 4, 16):
        same(evaluate(apply, variables, batches(video, label, size=size, order=order), num_classes=K), whole, atol=1e-5)


def test_undecodable_clips_stay_and_say_nothing(variables):
    video, label = clips(5)
    found = evaluate(apply, variables, batches(video, label, size=4, undecodable={1, 4}), num_classes=K)
    assert found.decoded.tolist() == [True, False, True, True, False]
    assert found.ids.tolist() == [0, 1, 2, 3, 4]
    assert found.labels.tolist() == label.tolist()
    assert not found.logits[[1, 4]].any()
    assert not found.scores[[1, 4]].any()
    assert not found.view_scores[[1, 4]].any()
    np.testing.assert_allclose(found.scores.sum(axis=1), [1, 0, 1, 1, 0], atol=1e-6)


def test_one_trace_per_shape_and_none_in_the_next_epoch(variables):
    traces = []

    def counted(variables, video):
        traces.append(video.shape)
        return apply(variables, video)

    video, label = clips(6)
    for _ in range(2):
        evaluate(counted, variables, batches(video, label, size=2), num_classes=K)
        variables = jax.tree.map(lambda x: x + 1, variables)
    assert traces == [(2, T, H, W, 3)]
    evaluate(counted, variables, batches(video, label, size=3), num_classes=K)
    assert traces == [(2, T, H, W, 3), (3, T, H, W, 3)]


def test_views_run_one_after_another(variables):
    """The device holds the activations of N clips, whatever V is: the network stands once, in a loop."""
    from jaxvid.evaluation.predict import _predict_views

    video, _ = clips(4, views=30)
    text = str(jax.make_jaxpr(lambda v, x: _predict_views(v, x, apply=apply))(variables, video))
    assert text.count("dot_general") == 1
    assert "length=30" in text
    assert f"f32[4,{T},{H},{W},3]" in text
    assert "f32[4,30,2" not in text
    assert "f32[120" not in text


def test_progress_counts_the_clips(variables):
    video, label = clips(5)
    seen = []
    evaluate(apply, variables, batches(video, label, size=2, undecodable={0}), num_classes=K, progress=seen.append)
    assert seen == [2, 4, 5]


def test_eight_devices_give_what_one_gives(variables):
    video, label = clips(19)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    placed = []

    def put(batch):
        placed.append({k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()})
        return placed[-1]

    one = evaluate(apply, variables, batches(video, label, size=8, undecodable={7}), num_classes=K)
    eight = evaluate(apply, replicated, batches(video, label, size=8, undecodable={7}), num_classes=K, put=put)
    same(eight, one, atol=1e-5)
    assert len(placed) == 3
    assert len(placed[0]["video"].sharding.device_set) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b["id"].__setitem__(1, 0), "more than once: id 0"),
        (lambda b: b["id"].__setitem__(1, 9), r"each of the 10 clips .* none with id 1, 3, 4, 5, 6, 7, 8"),
        (lambda b: b.update(video=b["video"][:, 0]), r"uint8\[N V T H W 3\] .* received uint8\[3, 2, 4, 5, 3\]"),
        (lambda b: b.update(video=b["video"].astype(np.float32)), "received float32"),
        (lambda b: b.update(video=b["video"][:, :0]), "V >= 1"),
    ],
)
def test_wrong_batches_are_refused(variables, change, message):
    (batch,) = batches(*clips(3), size=3)
    change(batch)
    with pytest.raises(ValueError, match=message):
        evaluate(apply, variables, [batch], num_classes=K)


def test_wrong_sets_are_refused(variables):
    video, label = clips(4)

    def run(found, **options):
        return evaluate(apply, variables, found, **({"num_classes": K} | options))

    with pytest.raises(ValueError, match="at least one batch"):
        run([])
    with pytest.raises(ValueError, match="received padding only"):
        run([dict(batch, id=np.full(4, -1, np.int32)) for batch in batches(video, label, size=4)])
    with pytest.raises(ValueError, match="each of the 6 clips must come exactly once, received none with id 4, 5"):
        run(batches(video, label, size=4), num_clips=6)
    with pytest.raises(ValueError, match="below num_clips=3, received id 3"):
        run(batches(video, label, size=4), num_clips=3)
    with pytest.raises(ValueError, match=r"K=5, received .*4, 2, 3"):
        run(batches(video, label, size=4), num_classes=5)
    with pytest.raises(ValueError, match="num_classes must be >= 1, received num_classes=0"):
        run(batches(video, label, size=4), num_classes=0)
    many = [next(batches(*clips(1), size=1)) | {"id": np.array([i], np.int32)} for i in range(3, 40)]
    with pytest.raises(ValueError, match="id 0, 1, 2"):
        run(many)
    with pytest.raises(ValueError, match=r"same number of views, received V in .1, 2"):
        run([*batches(video, label, size=4), dict(next(batches(*clips(1, views=1), size=1)), id=np.array([4]))])


def test_many_missing_ids_are_counted_not_listed(variables):
    (batch,) = batches(*clips(1), size=1)
    batch["id"] = np.array([30], np.int32)
    with pytest.raises(ValueError, match="id 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more"):
        evaluate(apply, variables, [batch], num_classes=K)


def test_logits_that_are_not_finite_name_their_clips(variables):
    def sometimes(variables, video):
        bad = video[:, 0, 0, 0, :1] == 255
        return jnp.where(bad, jnp.nan, apply(variables, video))

    video, label = clips(5)
    video[:, :, 0, 0, 0, 0] = 0
    video[3, 1, 0, 0, 0, 0] = 255
    with pytest.raises(FloatingPointError, match="clips with id 3"):
        evaluate(sometimes, variables, batches(video, label, size=2), num_classes=K)
    # A clip that was not decoded has no logits that could be wrong.
    found = evaluate(sometimes, variables, batches(video, label, size=2, undecodable={3}), num_classes=K)
    assert not found.logits[3].any()


def test_predictions_refuse_shapes_that_do_not_fit():
    good = {"ids": np.arange(2), "labels": np.zeros(2, int), "decoded": np.ones(2, bool),
            "logits": np.zeros((2, 1, 3), np.float32), "scores": np.full((2, 3), 1 / 3)}  # fmt: skip
    assert len(Predictions(**good)) == 2
    with pytest.raises(ValueError, match=r"scores must have the shape \(2, 3\)"):
        Predictions(**good | {"scores": np.zeros((2, 4))})
    with pytest.raises(ValueError, match=r"float32\[n V K\], received the shape \(2, 3\)"):
        Predictions(**good | {"logits": np.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"decoded must be bool\[n\], received int"):
        Predictions(**good | {"decoded": np.ones(2, int)})


PROCESS = textwrap.dedent(
    """
    import importlib.util, json, sys
    import jax
    index, port, test_file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=index)
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    from jaxvid.evaluation import evaluate
    spec = importlib.util.spec_from_file_location("mine", test_file)
    mine = importlib.util.module_from_spec(spec); spec.loader.exec_module(mine)

    kernel = np.random.default_rng(1).normal(size=(3, mine.K)).astype(np.float32) * 20
    video, label = mine.clips(10)
    ids = list(range(index, 10, 2))  # five clips on each process: batches of 4 and of 1 + 3 rows
    share = list(mine.batches(video, label, size=4, order=ids, undecodable={3}))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    local = {"params": {"kernel": kernel}}
    replicated = jax.device_put(local, NamedSharding(mesh, PartitionSpec()))
    put = lambda batch: {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
    results = {}
    for name, variables, place in (("sharded", replicated, put), ("local", local, None)):
        p = evaluate(mine.apply, variables, share, num_classes=mine.K, num_clips=10, put=place)
        results[name] = [p.ids.tolist(), p.labels.tolist(), p.decoded.tolist(), p.scores.tolist()]
    print(json.dumps(results))
    """
)


def test_two_processes_see_the_whole_set(variables, tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(script)]
    running = [
        subprocess.Popen(
            [*command, str(index), str(port), __file__],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == 0, errors
    video, label = clips(10)
    scores = softmax(expected_logits(variables, video)).mean(axis=1)
    scores[3] = 0
    for text, _ in outputs:
        for ids, labels, decoded, found in json.loads(text.splitlines()[-1]).values():
            assert ids == list(range(10))
            assert labels == label.tolist()
            assert decoded == [i != 3 for i in range(10)]
            np.testing.assert_allclose(found, scores, atol=1e-5)


def test_side_outputs_come_with_their_clips_and_views():
    """What is said beside the logits: by view, sorted by id, 0 where nothing was decoded, joined as the logits are."""

    def apply(variables, video):
        mean = video.astype(jnp.float32).mean(axis=(1, 2, 3, 4))
        return jnp.stack([mean, -mean], axis=-1), {"guess": mean.astype(jnp.int32), "pair": jnp.stack([mean] * 2, -1)}

    video = np.arange(12, dtype=np.uint8).reshape(4, 3, 1, 1, 1, 1).repeat(3, axis=-1)
    rows = {"label": np.zeros(4, np.int32), "id": np.array([3, 0, 2, 1], np.int32), "mask": np.arange(4) != 2}
    whole = {"video": video, **rows}
    batches = [{name: array[part] for name, array in whole.items()} for part in (slice(0, 2), slice(2, 4))]
    found = evaluate(apply, {}, batches, num_classes=2)
    expected = np.array([[3, 4, 5], [9, 10, 11], [0, 0, 0], [0, 1, 2]])
    np.testing.assert_array_equal(found.side["guess"], expected)
    np.testing.assert_array_equal(found.side["pair"], np.stack([expected] * 2, axis=-1))
    assert found.side["guess"].dtype == np.int32
    np.testing.assert_array_equal(found.logits[..., 0], expected)
    with pytest.raises(ValueError, match=r"guess must have the shape \(4, 3\)"):
        dataclasses.replace(found, side={"guess": np.zeros((4, 2))})
