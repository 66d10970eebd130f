import math

import numpy as np
import pytest
import scipy.linalg

from genjax.evaluation import distances


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def spd(rng: np.random.Generator, size: int, rank: int) -> np.ndarray:
    root = rng.normal(size=(size, rank))
    return root @ root.T


def test_isotropic_gaussians():
    # |0|^2 + tr(I + 4 I - 2 * 2 I) = 64
    zero, eye = np.zeros(64), np.eye(64)
    assert distances.frechet(zero, eye, zero, 4 * eye) == pytest.approx(64, rel=1e-13)


def test_diagonal_covariances(rng):
    mean1, mean2, std1, std2 = rng.normal(size=(4, 16))
    expected = ((mean1 - mean2) ** 2 + (abs(std1) - abs(std2)) ** 2).sum()
    assert distances.frechet(mean1, np.diag(std1**2), mean2, np.diag(std2**2)) == pytest.approx(expected, rel=1e-12)


def test_full_covariances_against_scipy(rng):
    mean1, mean2 = rng.normal(size=(2, 12))
    cov1, cov2 = spd(rng, 12, 40), spd(rng, 12, 40)
    expected = ((mean1 - mean2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * scipy.linalg.sqrtm(cov1 @ cov2).real)
    assert distances.frechet(mean1, cov1, mean2, cov2) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("rank1", "rank2"), [(3, 5), (1, 1), (5, 32), (0, 4)])
def test_covariances_without_full_rank(rng, rank1, rank2):
    # For C1 = A A^T and C2 = B B^T, the trace of (C1^1/2 C2 C1^1/2)^1/2 is the sum of the singular values of A^T B.
    a, b = rng.normal(size=(32, rank1)), rng.normal(size=(32, rank2))
    overlap = np.linalg.svd(a.T @ b, compute_uv=False).sum() if rank1 else 0.0
    expected = (a**2).sum() + (b**2).sum() - 2 * overlap
    zero = np.zeros(32)
    assert distances.frechet(zero, a @ a.T, zero, b @ b.T) == pytest.approx(expected, rel=1e-12)


def test_equal_sets_without_full_rank_are_at_distance_zero(rng):
    features = 100 * rng.normal(size=(10, 64))
    assert distances.frechet_from_features(features, features) == pytest.approx(0, abs=1e-9)


def test_rotation_and_exchange_change_nothing(rng):
    features1, features2 = rng.normal(size=(50, 24)), rng.normal(size=(20, 24)) @ spd(rng, 24, 24) + 1
    rotation = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    expected = distances.frechet_from_features(features1, features2)
    assert distances.frechet_from_features(features1 @ rotation, features2 @ rotation) == pytest.approx(
        expected, rel=1e-11
    )
    assert distances.frechet_from_features(features2, features1) == pytest.approx(expected, rel=1e-11)


def test_features_of_one_dimension():
    # Means 1 and 5, unbiased variances 2 and 8: 16 + (sqrt 8 - sqrt 2)^2 = 18
    first, second = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])
    assert distances.frechet_from_features(first, second) == pytest.approx(18, rel=1e-13)


def test_bias_shrinks_with_the_number_of_samples(rng):
    # For N(0, 1): E(m1 - m2)^2 = 1/n + 1/m, and E(s1 - s2)^2 half as much, to leading order.
    for n, m in ((50, 50), (50, 400), (400, 400)):
        values = [
            distances.frechet_from_features(rng.normal(size=(n, 1)), rng.normal(size=(m, 1))) for _ in range(1500)
        ]
        assert np.mean(values) == pytest.approx(1.5 * (1 / n + 1 / m), rel=0.12)


def test_wrong_moments_are_refused():
    zero, eye = np.zeros(3), np.eye(3)
    with pytest.raises(ValueError, match="not finite"):
        distances.frechet(np.array([0.0, np.nan, 0.0]), eye, zero, eye)
    with pytest.raises(ValueError, match="not finite"):
        distances.frechet_from_features(np.full((4, 3), np.inf), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="negative"):
        distances.frechet(zero, np.diag([1.0, 1.0, -0.1]), zero, eye)
    with pytest.raises(ValueError, match="shapes"):
        distances.frechet(zero, eye, np.zeros(4), np.eye(4))
    with pytest.raises(ValueError, match="at least 2"):
        distances.moments(np.zeros((1, 3)))


def test_floor(rng):
    train, test = rng.normal(size=(300, 4)), rng.normal(size=(80, 4))
    everything = distances.floor(train, test, len(train))
    assert everything.mean == pytest.approx(distances.frechet_from_features(train, test), rel=1e-10)
    assert everything.std == pytest.approx(0, abs=1e-10)
    few = distances.floor(train, test, 20, seed=3)
    assert few == distances.floor(train, test, 20, seed=3)
    assert few.mean > 2 * everything.mean and few.std > 0
    assert (few.n, few.repeats) == (20, 10)
    assert few.mean != distances.floor(train, test, 20, seed=4).mean
    with pytest.raises(ValueError, match="from 2 to 300"):
        distances.floor(train, test, 301)


def test_agreement_counts_the_requested_class():
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    result = distances.agreement(logits, np.array([0, 1, 1, 1]))
    assert (result.value, result.n) == (0.75, 4)
    assert 0 < result.low < 0.75 < result.high < 1
    with pytest.raises(ValueError, match="shape|needed"):
        distances.agreement(logits, np.array([0, 1]))


def test_the_intervals_of_the_distance_cover_what_other_samples_give(rng):
    # The interval is of the estimate's own mean, bias and all, against a fixed reference: so it is the mean of many
    # estimates that it has to cover.
    scale = np.arange(1, 9.0) ** -1.0
    reference = distances.moments(rng.normal(size=(100, 8)) * scale)
    for n, shift in ((100, 0.3), (400, 0.1)):
        draws = [(1.2 * rng.normal(size=(n, 8)) + shift) * scale for _ in range(300)]
        found = [distances.frechet_estimate(draw, reference) for draw in draws]
        values = np.array([estimate.value for estimate in found])
        assert values[0] == pytest.approx(distances.frechet(*distances.moments(draws[0]), *reference), rel=1e-12)
        low, high = np.array([(estimate.low, estimate.high) for estimate in found]).T
        assert np.mean(high - values) == pytest.approx(1.96 * values.std(), rel=0.15)
        assert 0.91 < np.mean((low < values.mean()) & (values.mean() < high)) < 0.99


def test_the_interval_of_a_distance_without_full_rank(rng):
    few, flat = rng.normal(size=(5, 16)), np.ones((6, 16))
    reference = distances.moments(rng.normal(size=(40, 16)))
    found = distances.frechet_estimate(few, reference)
    assert 0 <= found.low < found.value < found.high < np.inf
    constant = distances.frechet_estimate(flat, reference)
    assert constant.low == constant.value == constant.high  # every sample is the same, so none can move it


def test_kernel_distance_by_hand():
    # Two numbers a set make one block. Of x = 0, 1 and y = 1, 2: k(0, 1) = 1, k(1, 2) = 27, and the four between are
    # 1, 1, 8, 27.
    found = distances.kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]]))
    assert found.value == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4) and math.isnan(found.low)
    # Features of two dimensions are compared by half their product.
    wide = distances.kernel_distance(np.array([[0.0, 0], [1, 1]]), np.array([[1.0, 1], [2, 2]]))
    assert wide.value == pytest.approx(found.value)


def test_kernel_distance_has_no_bias_and_its_interval_covers(rng):
    # At sizes where a Frechet distance would be dominated by its bias; unequal, so that the blocks are too.
    found = [distances.kernel_distance(*(rng.normal(size=(n, 3)) for n in (40, 90)), seed=i) for i in range(200)]
    values = np.array([estimate.value for estimate in found])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(200)
    assert 0.93 < np.mean([estimate.low < 0 < estimate.high for estimate in found])
    # Of N(0, 1) and N(1, 1) in one dimension, by the moments E x = m, E x^2 = 1 + m^2, E x^3 = 3 m + m^3: with
    # k = 1 + 3 xy + 3 (xy)^2 + (xy)^3, MMD^2 = 3 * 1^2 + 3 * (2 - 1)^2 + (4 - 0)^2 = 22.
    found = [distances.kernel_distance(rng.normal(size=(60, 1)), 1 + rng.normal(size=(60, 1))) for _ in range(200)]
    values = np.array([estimate.value for estimate in found])
    assert abs(values.mean() - 22) < 4 * values.std() / math.sqrt(200) < 6


def test_kernel_distance_uses_every_image_once(rng):
    features = rng.normal(size=(2500, 2))
    same = distances.kernel_distance(features, features, seed=1)
    assert same == distances.kernel_distance(features, features, seed=1)
    assert same != distances.kernel_distance(features, features, seed=2)
    with pytest.raises(ValueError, match="needed"):
        distances.kernel_distance(features, features[:, :1])
    with pytest.raises(ValueError, match="not finite"):
        distances.kernel_distance(features, np.full((4, 2), np.nan))


def test_class_score_of_sure_and_of_unsure_predictions(rng):
    sure = 1e3 * np.eye(10)[np.arange(500) % 10]
    assert distances.class_score(sure).value == pytest.approx(10)
    assert distances.class_score(np.zeros((500, 10))).value == pytest.approx(1)
    assert distances.class_score(np.tile(sure[:1], (500, 1))).value == pytest.approx(1)  # one class alone
    # Half of the samples of one class for sure, half of two classes alike: by hand, with p = (3/4, 1/4).
    logits = np.array([[900.0, 0.0], [0.0, 0.0]] * 20)
    gap = 0.5 * math.log(4 / 3) + 0.5 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert distances.class_score(logits).value == pytest.approx(math.exp(gap))
    noisy = distances.class_score(rng.normal(size=(1000, 5)))
    assert 1 < noisy.low < noisy.value < noisy.high < 5
    with pytest.raises(ValueError, match="not finite"):
        distances.class_score(np.full((3, 2), np.inf))
