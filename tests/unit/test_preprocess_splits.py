"""steps/splits.py: stratified, repeatable, and no group on two sides."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from splits import Split, SplitItem, assign_splits

fractions = st.sampled_from([(0.15, 0.2), (0.1, 0.1), (0.3, 0.3), (0.15, 0.0), (0.5, 0.25)])
singles = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(3, 60), min_size=1)


def items_of(counts: dict[str, int]) -> list[SplitItem]:
    pairs = [(label, number) for label, count in counts.items() for number in range(count)]
    return [SplitItem(label, group, f"{label}/{number}") for group, (label, number) in enumerate(pairs)]


@given(counts=singles, shares=fractions, seed=st.integers(0, 2**31))
def test_every_class_is_divided_exactly(counts: dict[str, int], shares: tuple[float, float], seed: int) -> None:
    items = items_of(counts)
    splits = assign_splits(items, validation_fraction=shares[0], test_fraction=shares[1], seed=seed)
    for label, count in counts.items():
        got = Counter(split for item, split in zip(items, splits, strict=True) if item.label == label)
        for split, share in ((Split.VALIDATION, shares[0]), (Split.TEST, shares[1])):
            assert got[split] == (max(1, round(count * share)) if share else 0)
        assert sum(got.values()) == count


@given(
    members=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 15)), min_size=1, max_size=80),
    shares=fractions,
    seed=st.integers(0, 1000),
)
def test_no_group_straddles_whatever_the_groups(members: list[tuple[str, int]], shares: tuple[float, float], seed: int) -> None:
    items = [SplitItem(label, group, f"{label}/{number}") for number, (label, group) in enumerate(members)]
    splits = assign_splits(items, validation_fraction=shares[0], test_fraction=shares[1], seed=seed)
    sides: defaultdict[int, set[Split]] = defaultdict(set)
    for item, split in zip(items, splits, strict=True):
        sides[item.group].add(split)
    assert all(len(side) == 1 for side in sides.values())


@given(counts=singles, pairs=st.integers(0, 10), seed=st.integers(0, 1000))
def test_small_groups_do_not_disturb_the_shares(counts: dict[str, int], pairs: int, seed: int) -> None:
    counts = {label: count + 60 for label, count in counts.items()}
    items = items_of(counts)
    # Pairs of neighbours of one class look alike.
    items = [
        SplitItem(i.label, n - 1 if n % 2 and n < 2 * pairs and items[n - 1].label == i.label else n, i.identity)
        for n, i in enumerate(items)
    ]
    splits = assign_splits(items, validation_fraction=0.15, test_fraction=0.2, seed=seed)
    for label, count in counts.items():
        got = Counter(split for item, split in zip(items, splits, strict=True) if item.label == label)
        assert abs(got[Split.VALIDATION] - count * 0.15) <= 2
        assert abs(got[Split.TEST] - count * 0.2) <= 2


@given(counts=singles, seed=st.integers(0, 1000), chance=st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(counts: dict[str, int], seed: int, chance: random.Random) -> None:
    items = items_of(counts)
    straight = assign_splits(items, validation_fraction=0.15, test_fraction=0.2, seed=seed)
    mixed = list(items)
    chance.shuffle(mixed)
    again = assign_splits(mixed, validation_fraction=0.15, test_fraction=0.2, seed=seed)
    assert dict(zip((i.identity for i in mixed), again, strict=True)) == dict(zip((i.identity for i in items), straight, strict=True))


def test_another_seed_is_another_split() -> None:
    items = items_of({"a": 50, "b": 50})
    splits = {tuple(assign_splits(items, validation_fraction=0.15, test_fraction=0.2, seed=seed)) for seed in range(5)}
    assert len(splits) == 5
