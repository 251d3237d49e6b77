"""CKA against Gram matrices, against the definition over quadruples, its invariances, and controls that break them."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.maths.cka import CkaStream, divergence_onset
from interp_core.maths.resampling import grouped_jackknife
from tests.maths.plain_cka import linear_cka, unbiased_cka


def related(seed=0, n=40, widths=(6, 9)):
    """Two layers that share two of their directions."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 2))
    return [shared @ rng.normal(size=(2, width)) + rng.normal(size=(n, width)) for width in widths]


def gram_cka(x, y):
    """The plain estimate from n-by-n Gram matrices, centred on both sides."""
    n = len(x)
    centring = np.eye(n) - 1 / n
    k, m = (centring @ values @ values.T @ centring for values in (x, y))
    return np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))


def quadruple_hsic(x, y):
    """The unbiased HSIC as its definition has it: a mean over all ordered quadruples of different clips."""
    k, m = x @ x.T, y @ y.T
    values = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in itertools.permutations(range(len(x)), 4)]
    return sum(values) / len(values)


@pytest.mark.parametrize("n, widths", [(40, (6, 9)), (12, (30, 5)), (12, (30, 50))])
def test_linear_cka_agrees_with_the_gram_route_and_ignores_rotation_scale_and_shift(n, widths):
    x, y = related(n=n, widths=widths)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(widths[0], widths[0])))
    expected = gram_cka(x, y)
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-12)
    assert linear_cka(y, x) == pytest.approx(expected, abs=1e-12)
    assert linear_cka(3 * x @ rotation + 5, y) == pytest.approx(expected, abs=1e-12)
    stretched = x * np.array([9.0] + [1.0] * (widths[0] - 1))  # control: no rotation, so the score has to move
    assert abs(linear_cka(stretched, y) - expected) > 1e-2


def test_linear_cka_of_single_neurons_is_their_squared_correlation():
    x, y = related(widths=(1, 1))
    assert linear_cka(x, y) == pytest.approx(np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2, abs=1e-12)
    assert linear_cka(x, -2 * x + 1) == pytest.approx(1, abs=1e-12)


def test_unbiased_cka_agrees_with_the_mean_over_quadruples_and_ignores_rotation_scale_and_shift():
    x, y = related(seed=3, n=8, widths=(3, 4))
    expected = quadruple_hsic(x, y) / math.sqrt(quadruple_hsic(x, x) * quadruple_hsic(y, y))
    assert unbiased_cka(x, y) == pytest.approx(expected, abs=1e-12)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    assert unbiased_cka(7 * x @ rotation - 2, y) == pytest.approx(expected, abs=1e-12)
    assert abs(unbiased_cka(x * np.array([9.0, 1, 1]), y) - expected) > 1e-2  # control
    assert abs(linear_cka(x, y) - expected) > 1e-2  # control: the plain estimate is another number


def epsilon_cka(x, y):
    """A published mistake: a constant inside the root, over products that have the features' fourth power."""
    x, y = x - x.mean(0), y - y.mean(0)
    own = np.linalg.norm(x.T @ x) ** 2 * np.linalg.norm(y.T @ y) ** 2
    return np.linalg.norm(x.T @ y) ** 2 / math.sqrt(own + 1e-10)


@pytest.mark.parametrize("c", [1e-6, 1e6, 1e-100, 1e100])
@pytest.mark.parametrize("measure", [linear_cka, unbiased_cka])
def test_cka_is_blind_to_the_scale_of_a_layer_and_to_an_offset_of_1000(measure, c):
    x, y = related()
    expected = measure(x, y)
    assert measure(c * x, y) == pytest.approx(expected, abs=1e-12)
    assert measure(x, c * y) == pytest.approx(expected, abs=1e-12)
    assert measure(x + 1000, y - 1000) == pytest.approx(expected, abs=1e-10)
    assert measure(x, 0.01 * x + 1000) == pytest.approx(1, abs=1e-9)
    if c == 1e-6:
        assert epsilon_cka(c * x, y) < 0.5 * epsilon_cka(x, y)  # control


def test_unrelated_layers_score_high_by_the_plain_estimate_and_zero_by_the_unbiased_one():
    plain, unbiased = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(2, 50, 768))
        plain.append(linear_cka(x, y))
        unbiased.append(unbiased_cka(x, y))
    assert min(plain) > 0.9
    assert abs(np.mean(unbiased)) < 0.01
    assert np.mean(np.array(unbiased) < 0) > 0.3  # not clipped at 0


@pytest.mark.parametrize("measure", [linear_cka, unbiased_cka])
def test_undefined_cka_is_nan_with_a_reason_and_never_a_number(measure):
    x, y = related()
    wavering = 1e8 + 1e-5 * x  # differs by less than 1e-12 of its size: rounding
    for constant in (np.full((40, 3), 0.1), np.zeros((40, 3)), np.tile([1e8, 2.0], (40, 1)), wavering):
        found = measure(x, constant)
        assert math.isnan(found) and found.reason == "y is the same in every clip"
    assert not math.isnan(measure(x, 1e4 + 1e-5 * y))  # control: small, but not constant
    broken = x.copy()
    broken[3, 1] = np.nan
    assert math.isnan(measure(broken, y)) and measure(broken, y).reason == "x holds a NaN or an infinity"
    assert measure(x, y).reason == ""


def test_unbiased_cka_needs_four_clips_and_layers_with_a_self_similarity():
    x, y = related(n=3)
    assert math.isnan(unbiased_cka(x, y)) and unbiased_cka(x, y).reason == "n = 3 clips, 4 needed"
    assert not math.isnan(linear_cka(x, y))
    x, y = related(n=30)
    orthogonal = np.eye(30)  # no clip is like another: nothing to compare, though the plain estimate gives a number
    found = unbiased_cka(orthogonal, y)
    assert math.isnan(found) and "self-HSIC of x is not positive" in found.reason
    assert linear_cka(orthogonal, y) > 0


@pytest.mark.parametrize("x, y", [((4, 2), (5, 2)), ((4,), (4, 2)), ((1, 2), (1, 2)), ((4, 2, 2), (4, 2))])
def test_shapes_that_do_not_fit_are_refused(x, y):
    for measure in (linear_cka, unbiased_cka):
        with pytest.raises(InterpError, match="one n >= 2"):
            measure(np.ones(x), np.ones(y))


def layers(seed=0, n=60):
    """Three layers of one model and two of another, of different widths, that share a few directions."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 3))
    made = [shared @ rng.normal(size=(3, width)) + 0.7 * rng.normal(size=(n, width)) for width in (4, 7, 2, 5, 3)]
    return made[:3], made[3:]


def streamed(x, y, groups=None, *, batch=17, **settings):
    stream = CkaStream(**settings)
    for low in range(0, len(x[0]), batch):
        part = slice(low, low + batch)
        names = None if groups is None else groups[part]
        stream.add([layer[part] for layer in x], [layer[part] for layer in y], names)
    return stream.result()


def by_pairs(measure, x, y):
    return np.array([[measure(a, b) for b in y] for a in x])


@pytest.mark.parametrize("max_bytes", [1 << 30, 1 << 16])  # the second cuts the Gram matrices into several slices
def test_stream_agrees_with_every_pair_of_layers_taken_alone(max_bytes):
    x, y = layers()
    for groups in (None, [f"u{clip % 12}" for clip in range(60)]):
        found = streamed(x, y, groups, max_bytes=max_bytes)
        np.testing.assert_allclose(found.plain, by_pairs(linear_cka, x, y), atol=1e-12)
        np.testing.assert_allclose(found.unbiased, by_pairs(unbiased_cka, x, y), atol=1e-12)
        assert (found.n, found.minibatches, found.left_out) == (60, 1, 0)
    scaled = streamed([1e-6 * layer + 1000 for layer in x], [1e6 * layer for layer in y], max_bytes=max_bytes)
    np.testing.assert_allclose(scaled.unbiased, found.unbiased, atol=1e-6)  # 1e-6 beside 1000 has ten digits left
    scaled = streamed([1e-6 * layer for layer in x], [1e6 * layer + 1000 for layer in y], max_bytes=max_bytes)
    np.testing.assert_allclose(scaled.unbiased, found.unbiased, atol=1e-12)


def test_stream_keeps_its_own_copy_and_takes_tensors_of_any_width():
    x, y = layers()
    half = [torch.tensor(layer).bfloat16() for layer in x]
    found = streamed(half, [torch.tensor(layer).float() for layer in y])
    rounded = [layer.float().numpy() for layer in half]
    np.testing.assert_allclose(
        found.plain, by_pairs(linear_cka, rounded, [b.astype(np.float32) for b in y]), atol=1e-12
    )
    buffer, stream = np.zeros((60, 4)), CkaStream()
    buffer[:] = x[0]
    stream.add([buffer], [y[0]])
    buffer[:] = 0  # what the next forward pass does
    assert stream.result().plain[0, 0] == pytest.approx(linear_cka(x[0], y[0]), abs=1e-12)


def test_identical_layers_score_one_and_so_do_their_limits():
    x, _ = layers()
    found = streamed(x, x, [f"u{clip % 12}" for clip in range(60)])
    for values in (found.plain, found.unbiased, found.unbiased_interval.low, found.unbiased_interval.high):
        np.testing.assert_allclose(np.diag(values), 1, atol=1e-9)
    assert found.unbiased[0, 1] < 0.99  # control


def minibatch_cka(measure_hsic, x, y, sizes):
    """Sums of clips times HSIC over consecutive minibatches, one pair of layers."""
    cuts = np.cumsum([0, *sizes])
    total = np.zeros(3)
    for low, high in itertools.pairwise(cuts):
        a, b = x[low:high], y[low:high]
        total += (high - low) * np.array([measure_hsic(a, b), measure_hsic(a, a), measure_hsic(b, b)])
    return total[0] / math.sqrt(total[1] * total[2])


def plain_hsic(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(x.T @ y) ** 2 / (len(x) - 1) ** 2


def test_minibatches_add_hsic_up_and_only_the_plain_estimate_grows_with_their_number():
    x, y = layers()
    found = streamed(x, y, minibatch=9, batch=20)
    sizes = [9] * 6 + [6]
    assert (found.minibatches, found.n) == (7, 60)
    assert found.unbiased[1, 0] == pytest.approx(minibatch_cka(quadruple_hsic, x[1], y[0], sizes), abs=1e-10)
    assert found.plain[1, 0] == pytest.approx(minibatch_cka(plain_hsic, x[1], y[0], sizes), abs=1e-12)
    rng = np.random.default_rng(0)
    x, y = [rng.normal(size=(1200, 20))], [rng.normal(size=(1200, 20))]  # unrelated
    whole, cut = streamed(x, y), streamed(x, y, minibatch=12)
    assert abs(cut.unbiased[0, 0]) < 0.05 and abs(whole.unbiased[0, 0]) < 0.05
    assert cut.plain[0, 0] > 0.5 > 10 * whole.plain[0, 0]


def test_a_last_minibatch_of_under_four_clips_is_left_out_and_counted():
    x, y = layers(n=21)
    found = streamed(x, y, minibatch=9)
    assert (found.minibatches, found.n, found.left_out) == (2, 18, 3)
    np.testing.assert_allclose(found.plain, streamed([a[:18] for a in x], [b[:18] for b in y], minibatch=9).plain)


@pytest.mark.parametrize("minibatch, max_bytes", [(None, 1 << 30), (None, 1 << 16), (23, 1 << 30)])
def test_interval_is_the_jackknife_over_streams_that_never_saw_the_group(minibatch, max_bytes):
    x, y = layers()
    rng = np.random.default_rng(5)
    codes = rng.permutation(np.r_[np.arange(11), rng.integers(0, 11, 49)])  # groups of unequal size, scattered
    found = streamed(x, y, [f"u{code}" for code in codes], minibatch=minibatch, max_bytes=max_bytes)
    rows = np.arange(60)
    batches = [rows] if minibatch is None else [rows[:23], rows[23:46], rows[46:]]
    deleted = {"plain": [], "unbiased": []}
    for code in sorted(set(codes), key=lambda code: f"u{code}"):
        kept = [batch[codes[batch] != code] for batch in batches]
        order, sizes = np.concatenate(kept), [len(part) for part in kept]
        for kind, hsic in (("plain", plain_hsic), ("unbiased", unbiased_hsic)):
            deleted[kind].append([[minibatch_cka(hsic, a[order], b[order], sizes) for b in y] for a in x])
    sizes = [int((codes == code).sum()) for code in sorted(set(codes), key=lambda code: f"u{code}")]
    for kind in deleted:
        expected = grouped_jackknife(getattr(found, kind), deleted[kind], sizes)
        interval = getattr(found, f"{kind}_interval")
        np.testing.assert_allclose(interval.low, expected.low, atol=1e-10)
        np.testing.assert_allclose(interval.high, expected.high, atol=1e-10)
        assert interval.method == "delete-a-group jackknife, 11 groups"


def unbiased_hsic(x, y):
    """By U-centring both Gram matrices (Szekely & Rizzo 2014), another road to the mean over quadruples."""
    n = len(x)

    def centred(values):
        gram = values @ values.T
        np.fill_diagonal(gram, 0)
        out = gram - (gram.sum(0) + gram.sum(1)[:, None]) / (n - 2) + gram.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(out, 0)
        return out

    return (centred(x) * centred(y)).sum() / (n * (n - 3))


def test_u_centring_is_the_mean_over_quadruples():
    x, y = related(n=7, widths=(2, 3))
    assert unbiased_hsic(x, y) == pytest.approx(quadruple_hsic(x, y), abs=1e-12)


def test_interval_over_groups_covers_where_one_over_single_clips_does_not():
    """20 utterances in 5 near-copies each: what leaving out one clip shows is far less than what was sampled."""
    mixing = np.random.default_rng(0).normal(size=(2, 3, 3))

    def sample(rng, utterances, versions):
        base, own = np.repeat(rng.normal(size=(2, utterances, 3)), versions, axis=1)
        noise = 0.1 * rng.normal(size=(2, utterances * versions, 3))
        return base @ mixing[0] + noise[0], (base + own) @ mixing[1] + noise[1]

    truth = linear_cka(*sample(np.random.default_rng(1), 4000, 1))
    rng = np.random.default_rng(2)
    x, y = zip(*[sample(rng, 20, 5) for _ in range(50)], strict=True)  # 50 data sets stand on the diagonal

    def covered(groups):
        found = streamed(x, y, groups).plain_interval
        return np.mean((np.diag(found.low) <= truth) & (truth <= np.diag(found.high)))

    assert covered([f"u{clip // 5}" for clip in range(100)]) >= 0.85
    assert covered([f"c{clip}" for clip in range(100)]) < 0.7  # control


def test_undefined_layers_leave_the_others_alone_and_say_why():
    x, y = layers()
    clean = streamed(x, y)
    x[1] = np.full_like(x[1], 0.3)
    y[0][7, 2] = np.inf
    found = streamed(x, y, [f"u{clip % 12}" for clip in range(60)])
    np.testing.assert_array_equal(np.isnan(found.plain), found.plain_reason != "")
    np.testing.assert_array_equal(np.isnan(found.plain), [[True, False], [True, True], [True, False]])
    np.testing.assert_allclose(found.unbiased[[0, 2], 1], clean.unbiased[[0, 2], 1])
    assert found.plain_reason[1, 0] == "x is the same in every clip; y holds a NaN or an infinity"
    assert np.isfinite(found.plain_interval.low[0, 1]) and np.isnan(found.plain_interval.low[1, 1])


def test_a_layer_that_only_one_group_moves_has_a_value_and_no_interval():
    x, y = layers()
    x[0][:] = 1.0
    x[0][0] = 2.0  # without the first clip's group this layer is constant
    found = streamed(x, y, [f"u{clip % 12}" for clip in range(60)])
    assert np.isfinite(found.plain[0]).all() and np.isnan(found.plain_interval.low[0]).all()
    assert np.isnan(found.unbiased[0]).all()  # a single clip against all others: self-HSIC 0
    assert "x has a self-HSIC that is not positive" in found.unbiased_reason[0, 0]
    assert np.isfinite(found.plain_interval.low[1:]).all()


def test_few_clips_or_groups_give_reasons():
    x, y = layers(n=3)
    found = streamed(x, y)
    assert np.isfinite(found.plain).all() and np.isnan(found.unbiased).all()
    assert found.unbiased_reason[0, 0] == "x comes in 3 clips, 4 needed; y comes in 3 clips, 4 needed"
    assert found.plain_interval.method == "no interval: no groups were given"
    x, y = layers()
    few = streamed(x, y, [f"u{clip % 9}" for clip in range(60)])
    assert few.unbiased_interval.method == "no interval: 9 groups, 10 needed"
    assert np.isnan(few.unbiased_interval.low).all()


def test_memory_stays_within_the_limit_while_the_clips_do_not():
    rng = np.random.default_rng(0)
    made = rng.normal(size=(12, 100, 96)).astype(np.float32)  # 6 + 6 layers, batches of 100 clips
    limit = 4 << 20
    stream = CkaStream(max_bytes=limit)
    tracemalloc.start()
    try:
        for _ in range(25):  # 11.5 MB in all
            stream.add(list(made[:6]), list(made[6:]))
        found = stream.result()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.n == 2500 and found.minibatches == 6
    assert peak < 1.5 * limit  # one layer in float64 comes on top


def test_batches_that_do_not_fit_are_refused():
    x, y = layers()
    stream = CkaStream()
    with pytest.raises(InterpError, match="0 clips came"):
        stream.result()
    with pytest.raises(InterpError, match=r"\[clips, width\]"):
        stream.add([x[0], x[1][:5]], y)
    with pytest.raises(InterpError, match=r"\[clips, width\]"):
        stream.add([x[0][:, None]], y)
    stream.add(x, y)
    with pytest.raises(InterpError, match="the same layers"):
        stream.add(x[:2], y)
    with pytest.raises(InterpError, match="groups with every batch"):
        stream.add(x, y, ["u"] * 60)
    with pytest.raises(InterpError, match="width differs"):
        stream.add([x[1], x[0], x[2]], y)
    with pytest.raises(InterpError, match="59 groups for 60 clips"):
        CkaStream().add(x, y, ["u"] * 59)
    with pytest.raises(InterpError, match="at least 65536"):
        CkaStream(max_bytes=100)


def test_onset_is_the_first_layer_below_one_and_not_the_lowest():
    assert divergence_onset([1, 1 - 1e-9, np.nan, 0.99, 0.2, 0.9]) == 3
    assert divergence_onset([1, 1 - 1e-9], tolerance=1e-10) == 1
    assert divergence_onset([1.0, 1.0 + 1e-12]) is None
