"""Which rows an epoch draws, how often, and that a repeated row is another image."""

import itertools

import numpy as np
import pytest
import torch
from conftest import write_images
from example_labels import real_labels

from utils.data import augment, mixing, sampling
from utils.data.dataset import Samples
from utils.data.image_files import find_files
from utils.data.images import parse_channels
from utils.data.loader import EpochOrder, begin_epoch, count_steps, make_loader
from utils.data.sampling import RowSampler, balanced_draws, count_repeats, draw, repeat_factors
from utils.distributed import Distributed

CPU = torch.device("cpu")


def rare_labels():
    """100 rows of four classes, so that t is .25; the last row has the rarest class beside the commonest, 18 have none."""
    targets = np.zeros((100, 4), np.uint8)
    for column, (first, count) in enumerate([(0, 63), (63, 16), (77, 4), (99, 1)]):
        targets[first : first + count, column] = 1
    targets[99, 0] = 1
    return targets


def test_repeat_factors_are_those_of_the_paper():
    """√(.25/.16), √(.25/.04), √(.25/.01); the largest of a row's classes counts."""
    expected = np.ones(100)
    expected[63:79], expected[77:81], expected[99] = 1.25, 2.5, 5
    assert repeat_factors(rare_labels(), 0.3) == pytest.approx(expected)
    assert repeat_factors(np.eye(4)[np.arange(80) % 4], 0).tolist() == [1] * 80, "equally common classes"


def test_repeat_factors_of_the_competition():
    """11 images of the rarest class would be drawn ten times, and are drawn eight times; no other reaches that."""
    targets = real_labels()
    factors = repeat_factors(targets, 0)
    assert factors.max() == 8 and (factors[targets[:, 27] == 1] == 8).all() and (factors == 8).sum() == 11
    assert factors[targets[:, 25] == 1].min() == 1 and factors.sum() / len(targets) == pytest.approx(1.084, abs=1e-3)


@pytest.mark.parametrize("epoch, share", [(1, 0.5), (3, 0.275), (5, 0.05)])
def test_balanced_draws_are_a_class_and_one_of_its_rows_or_any_row(epoch, share):
    """By enumeration of both ways to draw a row, 100 times."""
    targets = np.pad(rare_labels(), ((0, 0), (0, 1)))  # a class without rows is never drawn
    expected = np.full(100, 100 * (1 - share) / 100)
    for column in range(4):
        rows = np.flatnonzero(targets[:, column])
        for row in rows:
            expected[row] += 100 * share / 4 / len(rows)
    assert balanced_draws(targets, (epoch - 1) / 4) == pytest.approx(expected)
    counts = np.zeros(100)
    for seed in range(2000):
        counts += np.bincount(
            RowSampler("balanced", targets, 5).rows(epoch, np.random.default_rng(seed)), minlength=100
        )
    assert counts / 2000 == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("name", sampling.SAMPLERS)
def test_every_epoch_is_equally_long_and_draws_what_it_should(name):
    sampler = RowSampler(name, real_labels()[::20], 4)
    for epoch, seed in itertools.product((1, 2, 4), range(5)):
        rows = sampler.rows(epoch, np.random.default_rng(seed))
        expected = sampling.SAMPLERS[name](sampler.targets, (epoch - 1) / 3)
        counts = np.bincount(rows, minlength=len(expected))
        assert len(rows) == len(sampler) == round(expected.sum())
        assert (counts >= np.floor(expected)).all() and (counts <= np.ceil(expected)).all()


def test_draws_are_right_on_average():
    expected = np.array([1, 1.25, 0.1, 2.9, 0.75, 1, 3])
    counts = [np.bincount(draw(expected, 10, np.random.default_rng(seed)), minlength=7) for seed in range(4000)]
    assert np.mean(counts, axis=0) == pytest.approx(expected, abs=0.03)
    assert (np.take(counts, [0, 5, 6], axis=1) == [1, 1, 3]).all(), "what is whole is not random"
    assert {tuple(count) for count in np.array(counts)[:, [1, 2, 4]]} >= {(2, 0, 0), (1, 1, 0), (1, 0, 1)}
    assert draw(np.ones(3), 3, np.random.default_rng(0)).tolist() == [0, 1, 2]


def test_repeats_are_counted_in_the_order_of_the_draws():
    assert count_repeats(np.array([4, 1, 4, 0, 4, 1])).tolist() == [0, 0, 1, 0, 2, 1]


def test_without_a_sampler_the_order_is_numpys_and_no_row_is_repeated():
    expected = np.arange(20)
    np.random.default_rng((5, 3)).shuffle(expected)
    order = EpochOrder(range(20), 5, True, batch_size=8, steps=3)
    order.epoch, order.skip = 3, 2
    assert list(order) == [(3, row, 6 + place // 8, 0) for place, row in enumerate(expected.tolist())][2:]


@pytest.fixture
def loaders(tmp_path):
    """A function (workers, context, epoch, skip) -> the batches of an epoch with everything that is random."""
    ids = [f"i{number}" for number in range(10)]
    write_images(tmp_path, ids, size=40)
    channels, targets = parse_channels("rgby"), np.zeros((10, 6), np.uint8)
    targets[:, 0] = targets[0, :5] = targets[7, 5] = 1  # the first row alone has four classes
    files = find_files([tmp_path], ids, channels)

    def load(workers=0, context=None, epoch=2, skip=0):
        samples = Samples(files, channels, 24, "zoom", "image", targets, augment.build("gain", channels.names), True, 7)
        samples.mix = mixing.Mix("cutmix", 0.5)
        sampler = RowSampler("balanced", targets, 3)
        loader = make_loader(samples, 4, workers, CPU, True, context or Distributed(), sampler)
        found = list(begin_epoch(loader, epoch, skip))
        assert len(found) + skip // 4 == len(loader) == count_steps(10, 4) == 3
        return found

    return load


def test_batches_are_the_same_for_any_workers_and_processes_and_after_an_interruption(loaders):
    whole = loaders()
    rows = torch.cat([batch["rows"] for batch in whole]).tolist()
    assert len(rows) == 10 and rows.count(0) in (2, 3), "0.275 x 10 / 6 x 4.1 + 0.725 = 2.6"
    for again in (loaders(workers=2), [*whole[:1], *loaders(skip=4)]):
        for batch, other in zip(whole, again, strict=True):
            assert batch.keys() == other.keys() and all(torch.equal(batch[key], other[key]) for key in batch)
    shards = [loaders(context=Distributed(rank, 2)) for rank in (0, 1)]
    for number, batch in enumerate(whole):
        for place, row in enumerate(batch["rows"].tolist()):
            shard, own = shards[place % 2][number], place // 2
            assert shard["rows"][own] == row and shard["whole"] == len(batch["rows"])
            for key in ("images", "targets", "mean", "std"):
                assert torch.equal(shard[key][own], batch[key][place])


def test_a_repeated_row_is_another_image(tmp_path):
    write_images(tmp_path, ["a"], size=40)
    channels = parse_channels("rgby")
    files, chain = find_files([tmp_path], ["a"], channels), augment.build("gain", channels.names)
    ways = [("zoom", None), ("crop", None), ("resize", chain)]
    for fit, augmentation in ways:
        samples = Samples(files, channels, 24, fit, "none", None, augmentation, random_crop=True)
        first, again, repeat, third = (samples[(2, 0, 0, *more)]["images"] for more in ([], [0], [1], [2]))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, repeat) and not np.array_equal(repeat, third)
