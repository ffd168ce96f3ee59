"""Intervals of mIoU: against a slow jackknife, against Student's t, coverage in a simulated world, and over seeds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from kit.oracles.segmentation import slow_miou
from kit.segmentation_reports import fake, of_counts
from ovs_lite.evaluation import mean_estimate, mean_interval, miou_difference, miou_interval, ratio_interval
from ovs_lite.evaluation.metrics.confusion import class_ious
from ovs_lite.evaluation.metrics.intervals import MIN_IMAGES, miou_double_difference, ratio_difference, too_few_images


def slow_jackknife(*several):
    """(one, difference of two, or of two differences; low, high) with one list without each picture."""
    lists = [list(counts) for counts in several]
    count, wholes = len(lists[0]), [slow_miou(pictures) for pictures in lists]
    sign = [1, -1, -1, 1]
    value = sum(s * whole[0] for s, whole in zip(sign, wholes, strict=False))
    without = [
        sum(s * slow_miou(p[:i] + p[i + 1 :], whole[1])[0] for s, p, whole in zip(sign, lists, wholes, strict=False))
        for i in range(count)
    ]
    centre = count * value - (count - 1) * sum(without) / count
    pseudo = [count * value - (count - 1) * one for one in without]  # Tukey's pseudo-values
    half = stats.t.ppf(0.975, count - 1) * np.std(pseudo, ddof=1) / math.sqrt(count)
    return value, min(value, centre - half), max(value, centre + half)


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_equals_tukeys_pseudo_values(seed):
    first, second = fake(seed, 40), fake(seed + 10, 40, quality=0.2)
    for found, expected in (
        (miou_interval(first), slow_jackknife(first.per_image)),
        (miou_difference(first, second), slow_jackknife(first.per_image, second.per_image)),
    ):
        assert (found.value, found.low, found.high) == pytest.approx(expected, rel=1e-9)
        assert found.images == 40 and found.seeds == 1 and found.note == ""
        assert found.points == 100 * found.value and found.interval == (100 * found.low, 100 * found.high)


def test_with_target_classes_alone_it_is_that_of_the_classes_shown():
    """absent="target": a class that is only predicted counts for nothing, in the value and in its interval."""
    union = fake(5, 40)  # its last two classes are never shown, and one of them is predicted
    target, shown = replace(union, protocol={"absent": "target"}), union.only(union.names[:4])
    assert miou_interval(target) == miou_interval(shown) != miou_interval(union)
    assert target.scores.miou == shown.scores.miou == miou_interval(target).value
    with pytest.raises(ValueError, match="absent=target and union, expected one convention"):
        miou_difference(target, union)


def test_where_iou_is_a_mean_it_is_students_interval():
    """One class that every picture shows with equal unions: mIoU is the mean of the pictures' IoUs."""
    right = np.random.default_rng(0).integers(10, 90, 30)
    counts = np.stack([right, right, np.full(30, 100)], 1)[:, :, None]
    low, high = stats.t.interval(0.95, 29, loc=(right / 100).mean(), scale=stats.sem(right / 100))
    for found in (miou_interval(of_counts(counts)), mean_interval(right / 100)):
        assert (found.low, found.high) == pytest.approx((low, high)) and found.freedom == pytest.approx(29)


def test_a_difference_has_a_sign_and_no_order_of_pictures():
    first, second = fake(4, 40), fake(5, 40, quality=0.2)
    found, back = miou_difference(first, second), miou_difference(second, first)
    assert found.value > 0 and (back.value, back.low, back.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )
    order = np.random.default_rng(0).permutation(40)
    shuffled = of_counts(second.per_image[order], [second.image_ids[i] for i in order])
    assert miou_difference(first, shuffled) == found
    same = miou_difference(first, first)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_pairing_narrows_a_difference():
    """The second is the first with a tenth fewer right pixels everywhere: their difference hardly moves."""
    first = fake(3, 60)
    worse = first.per_image.copy()
    worse[:, 0] = worse[:, 0] * 0.9
    paired, alone = miou_difference(first, of_counts(worse)), miou_interval(first)
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


# --- coverage in a world whose mIoU is known


def world(classes, images=8000, present=4):
    """Counts of two methods on the same pictures. Classes and pictures are easy or hard, classes rare or frequent."""
    rng = np.random.default_rng(classes)
    rarity = np.log(np.arange(1, classes + 1)) / 2
    shown = np.argsort(rarity - rng.gumbel(size=(images, classes)), 1)[:, :present]
    target = np.zeros((images, classes))
    np.put_along_axis(target, shown, rng.dirichlet(np.ones(present), images) * 1000, 1)
    target = np.floor(target)
    mistaken, ease = rng.integers(0, classes, (3, classes)), rng.normal(0, 1, (images, 1))
    both = []
    for skill in (0.25, 0.0):
        logit = np.linspace(-0.6, 1.1, classes) + skill + ease
        right = np.floor(target / (1 + np.exp(-logit - rng.normal(0, 0.8, (images, classes)))))
        predicted = right.copy()
        for others, share in zip(mistaken, (0.5, 0.3, 0.2), strict=True):
            np.add.at(predicted.T, others, np.floor(share * (target - right)).T)
        both.append(np.stack([right, predicted, target], 1))
    return both


def mious(counts, weights, fixed=None):
    """(S,) mIoU of resamples; fixed: IoUs of all classes, for those that a resample lacks (else it leaves them out)."""
    ious = class_ious(np.stack([weights @ counts[:, part] for part in range(3)], 1))
    if fixed is None:
        return np.nanmean(ious, 1)
    return np.where(np.isnan(ious), fixed, ious)[:, ~np.isnan(fixed)].mean(1)


def percentile(first, second, rng):
    """The bootstrap that this kit had: classes as each resample has them, quantiles as they fall."""
    weights = rng.multinomial(len(first), np.full(len(first), 1 / len(first)), 200)
    draws = mious(first, weights) - (0 if second is None else mious(second, weights))
    return np.percentile(draws, (2.5, 97.5))


def jackknife(first, second, rng):
    found = miou_interval(of_counts(first)) if second is None else miou_difference(of_counts(first), of_counts(second))
    assert found.note == ""
    return found.low, found.high


def coverage(method, classes, images, single, draws=400):
    first, second = world(classes)
    everything = np.ones((1, len(first)))
    truth = mious(first, everything)[0] - (0 if single else mious(second, everything)[0])
    rng, hits = np.random.default_rng(0), 0
    for _ in range(draws):
        drawn = rng.integers(0, len(first), images)
        low, high = method(first[drawn], None if single else second[drawn], rng)
        hits += low <= truth <= high
    return hits / draws


@pytest.mark.parametrize("single", [True, False], ids=["mIoU", "difference"])
@pytest.mark.parametrize(("classes", "images"), [(8, 40), (20, 80), (60, 180)])
def test_coverage_is_95_percent_at_few_and_at_many_classes(classes, images, single):
    assert 0.925 <= coverage(jackknife, classes, images, single) <= 0.975


def test_the_percentile_bootstrap_fails_at_many_classes():
    assert coverage(percentile, 60, 180, True, draws=100) < 0.85


# --- too few pictures


def test_without_pictures_enough_of_the_median_class_there_is_no_interval():
    counts = np.zeros((30, 3, 5), int)
    for k, shown in enumerate((3, MIN_IMAGES - 1, MIN_IMAGES, 30)):
        counts[:shown, :, k] = 10
    assert "median of 4 classes is in 7.5 images, 8 needed" in too_few_images(counts)
    found = miou_interval(of_counts(counts))
    assert found.value == 1 and math.isnan(found.low) and math.isnan(found.high) and found.interval is None
    assert "no interval" in str(found) and "30 images" in str(found)
    counts[MIN_IMAGES - 1, :, 1] = 10
    assert too_few_images(counts) == "" and miou_interval(of_counts(counts)).interval == (100, 100)
    predicted_only = counts.copy()
    predicted_only[0, 1, 4] = 1
    assert too_few_images(predicted_only) == "", "a class that is only predicted counts, in no image; the median is 8"


def test_one_picture_has_no_interval():
    assert miou_interval(fake(0, 1)).interval is None and mean_interval([0.5]).interval is None


# --- seeds


def test_seeds_add_their_variance_by_welch_and_satterthwaite():
    base = fake(0, 40)
    seeds = [fake(seed, 40, quality=0.3 + 0.2 * seed) for seed in range(3)]
    found = miou_difference(seeds, base)
    singles = [miou_difference(one, base) for one in seeds]
    values = [one.value for one in singles]
    assert found.value == pytest.approx(np.mean(values)) and found.seeds == 3
    assert found.error**2 > np.var(values, ddof=1) / 3
    images = found.error**2 - np.var(values, ddof=1) / 3
    freedom = found.error**4 / (images**2 / 39 + (np.var(values, ddof=1) / 3) ** 2 / 2)
    assert found.freedom == pytest.approx(freedom) and 2 <= freedom <= 41
    half = stats.t.ppf(0.975, freedom) * found.error
    assert found.high - found.low == pytest.approx(2 * half)


def test_seeds_that_agree_are_one_and_seeds_that_disagree_decide_nothing():
    better, worse, base = fake(1, 40, quality=0.8), fake(2, 40, quality=0.1), fake(3, 40, quality=0.45)
    agreed = miou_difference([better, better], base)
    once = miou_difference(better, base)
    assert (agreed.low, agreed.high) == pytest.approx((once.low, once.high)) and once.low > 0
    split = miou_difference([better, worse], base)
    assert split.low < 0 < split.high and split.high - split.low > 3 * (once.high - once.low)


@pytest.mark.parametrize("seeds", [2, 3])
def test_coverage_over_seeds(seeds):
    """A training whose quality differs from seed to seed as much as its mean over 25 pictures does; both are new."""
    rng, hits, draws = np.random.default_rng(0), 0, 2000
    for _ in range(draws):
        rows = 0.5 + rng.normal(0, 0.1, 25) + rng.normal(0, 0.02, (seeds, 1)) + rng.normal(0, 0.05, (seeds, 25))
        found = mean_interval(rows)
        hits += found.low <= 0.5 <= found.high
    assert 0.93 <= hits / draws <= 0.97


def test_a_mean_of_sets_is_that_of_independent_estimates():
    parts = [miou_difference(fake(seed, 40), fake(seed + 5, 40, quality=0.2)) for seed in range(3)]
    found = mean_estimate(parts)
    assert found.value == pytest.approx(sum(part.value for part in parts) / 3) and found.images == 120
    assert found.error == pytest.approx(math.sqrt(sum(part.error**2 for part in parts)) / 3)
    alone = mean_estimate(parts[:1])
    assert (alone.low, alone.high) == pytest.approx((parts[0].low, parts[0].high))
    seeded = miou_difference([fake(seed, 40, quality=0.3) for seed in range(2)], fake(5, 40, quality=0.2))
    assert mean_estimate([seeded]).value == pytest.approx(seeded.value)
    with pytest.raises(ValueError, match="got 2 estimates over up to 2 seeds, expected independent ones"):
        mean_estimate([seeded, parts[0]])
    lacking = mean_estimate([*parts, miou_interval(fake(0, 3))])
    assert lacking.interval is None and "no interval" in lacking.note and lacking.value > 0


def test_what_a_step_brings_beyond_what_it_brings_elsewhere():
    four = [fake(seed, 40, quality=quality) for seed, quality in enumerate((0.4, 0.2, 0.3, 0.25))]
    found = miou_double_difference(*four)
    expected = slow_jackknife(*(report.per_image for report in four))
    assert (found.value, found.low, found.high) == pytest.approx(expected, rel=1e-9)
    alone, (a, b, c, _) = miou_difference(four[0], four[1]), four
    assert vars(miou_double_difference(a, b, c, c)) == pytest.approx(vars(alone))
    assert miou_double_difference(a, b, a, b).value == 0
    with pytest.raises(ValueError, match="expected the same images"):
        miou_double_difference(a, b, c, fake(9, 30))


def test_what_cannot_be_compared_is_refused():
    first = fake(1)
    renamed = of_counts(first.per_image, names=["x", *first.names[1:]])
    elsewhere = of_counts(first.per_image, ["q", *first.image_ids[1:]])
    for wrong in (renamed, elsewhere, fake(1, 11)):
        with pytest.raises(ValueError, match="expected the same images and classes, and at least one of each"):
            miou_difference(first, wrong)
    twice = of_counts(first.per_image, [*first.image_ids[:-1], first.image_ids[0]])
    with pytest.raises(ValueError, match=r"images of \d+ different names, expected a name for each"):
        miou_difference(twice, twice)
    empty, void = fake(1, 0), of_counts(0 * first.per_image)
    with pytest.raises(ValueError, match="at least one of each"):
        miou_difference(empty, empty)
    with pytest.raises(ValueError, match="got 12 images without a labelled pixel"):
        miou_difference(void, void)
    with pytest.raises(ValueError, match="got 3 and 2 seeds"):
        miou_difference([first] * 3, [first] * 2)
    with pytest.raises(ValueError, match="got no estimate"):
        mean_estimate([])
    for wrong in ([], np.zeros((2, 3, 4))):
        with pytest.raises(ValueError, match="got numbers of shape"):
            mean_interval(wrong)


def test_a_ratio_of_sums_has_tukeys_interval_and_a_mean_is_one_of_them():
    rng = np.random.default_rng(0)
    wholes = rng.integers(0, 6, 30)
    parts = wholes * rng.uniform(0.2, 0.9, 30)
    value = parts.sum() / wholes.sum()
    some = np.flatnonzero(wholes)
    without = [np.delete(parts, i).sum() / np.delete(wholes, i).sum() for i in some]
    pseudo = len(some) * value - (len(some) - 1) * np.array(without)
    half = stats.t.ppf(0.975, len(some) - 1) * stats.sem(pseudo)
    found = ratio_interval(parts, wholes)
    assert (found.value, found.images) == (pytest.approx(value), len(some)), "empty ones say nothing"
    assert (found.low, found.high) == pytest.approx((pseudo.mean() - half, pseudo.mean() + half))
    mean, ratio = mean_interval(parts), ratio_interval(parts, np.ones(30))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((mean.value, mean.low, mean.high))
    seeds = ratio_interval([parts, parts * 0.9], wholes)
    assert seeds.seeds == 2 and seeds.value == pytest.approx(0.95 * value) and seeds.error > found.error
    assert ratio_interval([1.0, 0.0], [2, 0]).note == "no interval: one image"
    for wrong in (([1.0], [0]), ([1.0, 2.0], [1]), ([], [])):
        with pytest.raises(ValueError, match="expected .S, N. and .N,. with something in them"):
            ratio_interval(*wrong)


def test_a_difference_of_ratios_has_tukeys_interval_over_the_images_of_either():
    rng = np.random.default_rng(1)
    wholes, others = rng.integers(0, 4, 30), rng.integers(0, 3, 30)
    parts, less = wholes * rng.uniform(0.2, 0.9, 30), others * rng.uniform(0.1, 0.8, 30)
    some = [i for i in range(30) if wholes[i] or others[i]]

    def difference(kept):
        first, second = (
            [sum(float(row[i]) for i in kept) for row in pair] for pair in ((parts, wholes), (less, others))
        )
        return first[0] / first[1] - second[0] / second[1]

    pseudo = [len(some) * difference(some) - (len(some) - 1) * difference([j for j in some if j != i]) for i in some]
    half = stats.t.ppf(0.975, len(some) - 1) * stats.sem(pseudo)
    found = ratio_difference((parts, wholes), (less, others))
    assert len(some) < 30 and found.images == len(some) and found.value == pytest.approx(difference(some))
    expected = (np.mean(pseudo) - half, np.mean(pseudo) + half)
    assert (found.low, found.high) == pytest.approx((min(expected[0], found.value), max(expected[1], found.value)))
    turned = ratio_difference((less, others), (parts, wholes))
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert ratio_difference(([1, 0, 0], [2, 0, 0]), ([1, 1, 0], [1, 1, 1])).note == "no interval: one image"
    with pytest.raises(ValueError, match="expected the same images"):
        ratio_difference((parts, wholes), (less[:9], others[:9]))
