"""conv3d over drawn shapes: every formulation of a CPU against the definition in NumPy, in value and gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvid.ops import conv3d


@st.composite
def _problems(draw):
    """Shapes, options and a seed; the padding as it is given and as pairs."""
    groups = draw(st.sampled_from([1, 1, 2, 3, 5]))
    # A depthwise kernel is one of those with groups.
    inputs, outputs = (1, 1) if groups == 5 else (draw(st.integers(1, 5)), draw(st.integers(1, 3)))
    named = draw(st.sampled_from([None, "SAME", "VALID"]))
    axes = []
    for _ in range(3):
        taps, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        reach = dilation * (taps - 1) + 1
        low, high = draw(st.integers(0, taps)), draw(st.integers(0, taps))
        if named == "VALID":
            low = high = 0
        size = draw(st.integers(1, 4)) + (0 if named == "SAME" else max(0, reach - 1 - low - high))
        if named == "SAME":
            missing = max(0, (-(-size // stride) - 1) * stride + reach - size)
            low, high = missing // 2, missing - missing // 2
        axes.append((size, taps, stride, dilation, (low, high)))
    sizes, taps, strides, dilation, pads = zip(*axes, strict=True)
    x_shape = (draw(st.integers(1, 2)), *sizes, groups * inputs)
    options = {"strides": strides, "padding": named or pads, "dilation": dilation, "groups": groups}
    return x_shape, (*taps, inputs, groups * outputs), pads, options, draw(st.integers(0, 2**16))


def _taps(x, kernel, pads, options):
    """What every tap sees, ``[N T H W G I]``, where it is in the padded input, and its kernel ``[I G O]``."""
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    strides, dilation, groups = (options[name] for name in ("strides", "dilation", "groups"))
    spans = [
        size - step * (taps - 1) for size, step, taps in zip(padded.shape[1:4], dilation, kernel.shape, strict=False)
    ]
    for tap in itertools.product(*map(range, kernel.shape[:3])):
        place = tuple(
            slice(k * step, k * step + span, stride)
            for k, step, span, stride in zip(tap, dilation, spans, strides, strict=True)
        )
        seen = padded[:, *place]
        split = kernel[tap].reshape(kernel.shape[3], groups, -1)
        yield seen.reshape(*seen.shape[:4], groups, -1), place, tap, split


def _plain(x, kernel, pads, options):
    y = sum(np.einsum("nthwgi,igo->nthwgo", seen, split) for seen, _, _, split in _taps(x, kernel, pads, options))
    return y.reshape(*y.shape[:4], -1)


def _plain_gradients(x, kernel, pads, options, cotangent):
    split_cotangent = cotangent.reshape(*cotangent.shape[:4], options["groups"], -1)
    of_padded, of_kernel = np.pad(np.zeros_like(x), [(0, 0), *pads, (0, 0)]), np.zeros_like(kernel)
    for seen, place, tap, split in _taps(x, kernel, pads, options):
        of_kernel[tap] = np.einsum("nthwgi,nthwgo->igo", seen, split_cotangent).reshape(kernel.shape[3:])
        part = np.einsum("nthwgo,igo->nthwgi", split_cotangent, split)
        of_padded[:, *place] += part.reshape(*part.shape[:4], -1)
    inside = [slice(low, low + size) for (low, _), size in zip(pads, x.shape[1:4], strict=True)]
    return of_padded[:, *inside], of_kernel


def _drawn(x_shape, kernel_shape, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=x_shape), rng.normal(size=kernel_shape) / np.sqrt(np.prod(kernel_shape[:4]))


def _formulations(x_shape, kernel_shape, groups):
    depthwise = groups == x_shape[-1] == kernel_shape[-1]
    return (None, "direct", "folded", *(["shifted"] if depthwise else []))


@given(_problems(), st.sampled_from(["float32", "float32", "bfloat16"]))
@settings(max_examples=14, deadline=None)
def test_every_formulation_is_the_definition(problem, dtype):
    x_shape, kernel_shape, pads, options, seed = problem
    x, kernel = (jnp.asarray(a, dtype) for a in _drawn(x_shape, kernel_shape, seed))
    exact = [np.asarray(a, np.float64) for a in (x, kernel)]
    y = _plain(*exact, pads, options)
    cotangent = jnp.asarray(np.random.default_rng(seed + 1).normal(size=y.shape), dtype)
    expected = (y, *_plain_gradients(*exact, pads, options, np.asarray(cotangent, np.float64)))
    names = _formulations(x_shape, kernel_shape, options["groups"])

    @jax.jit
    def run(x, kernel, cotangent):
        results = []
        for name in names:
            y, pull = jax.vjp(lambda x, k, name=name: conv3d(x, k, implementation=name, **options), x, kernel)
            results.append((y, *pull(cotangent)))
        return results

    for name, received in zip(names, run(x, kernel, cotangent), strict=True):
        for ours, theirs in zip(received, expected, strict=True):
            assert ours.dtype == dtype
            size = max(1, np.abs(theirs).max())
            tolerance = {"float32": 1e-5, "bfloat16": 3e-2}[dtype] * size
            np.testing.assert_allclose(np.asarray(ours, np.float64), theirs, rtol=0, atol=tolerance, err_msg=str(name))


@given(_problems())
@settings(max_examples=8, deadline=None)
def test_gradients_equal_float64_finite_differences(problem):
    x_shape, kernel_shape, pads, options, seed = problem
    x, kernel = _drawn(x_shape, kernel_shape, seed)
    towards_x, towards_kernel = _drawn(x_shape, kernel_shape, seed + 1)
    step = 1e-5
    ahead, behind = (
        np.sin(_plain(x + s * towards_x, kernel + s * towards_kernel, pads, options)).sum() for s in (step, -step)
    )
    expected = (ahead - behind) / (2 * step)
    names = _formulations(x_shape, kernel_shape, options["groups"])
    with jax.enable_x64(True):

        @jax.jit
        def run(x, kernel):
            return [
                jax.grad(lambda x, k, n=n: jnp.sin(conv3d(x, k, implementation=n, **options)).sum(), (0, 1))(x, kernel)
                for n in names
            ]

        for name, (of_x, of_kernel) in zip(names, run(jnp.asarray(x), jnp.asarray(kernel)), strict=True):
            assert of_x.dtype == of_kernel.dtype == jnp.float64
            received = np.sum(of_x * towards_x) + np.sum(of_kernel * towards_kernel)
            # Where the kernel is depthwise, None is "shifted" on a CPU, whose arithmetic is float32.
            atol = 1e-4 if "shifted" in names and name in (None, "shifted") else 1e-8
            np.testing.assert_allclose(received, expected, rtol=0, atol=atol * max(1, abs(expected)), err_msg=str(name))
