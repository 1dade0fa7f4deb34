"""Train, validation and test: stratified, seeded, and never with one group of look-alikes on two sides."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Split(StrEnum):
    """What a part of the images is for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class SplitItem:
    """An image to assign: its class, the group it must stay with, and an identity that does not depend on where or when it was found."""

    label: str
    group: int
    identity: str


def assign_splits(items: Sequence[SplitItem], *, validation_fraction: float, test_fraction: float, seed: int) -> list[Split]:
    """The split of each item.

    Every class gets `fraction` of its images (rounded, at least one where the fraction is above 0 and the class has three images or more)
    in validation and test, as exactly as its groups allow: groups are placed whole, large ones first, each where most images of its classes
    are still wanted. Depends on the items' identities and the seed, not on their order.
    """
    totals = Counter(item.label for item in items)
    wanted: dict[str, dict[Split, int]] = {}
    for label, total in totals.items():
        validation, test = (_share(total, fraction) for fraction in (validation_fraction, test_fraction))
        wanted[label] = {Split.TRAIN: total - validation - test, Split.VALIDATION: validation, Split.TEST: test}
    groups: defaultdict[int, list[SplitItem]] = defaultdict(list)
    for item in items:
        groups[item.group].append(item)
    drawn = {number: min(shuffle_key(seed, item.identity) for item in members) for number, members in groups.items()}
    placed: dict[int, Split] = {}
    for number in sorted(groups, key=lambda number: (-len(groups[number]), drawn[number])):
        labels = Counter(item.label for item in groups[number])
        best = max(Split, key=lambda split: sum(count * wanted[label][split] for label, count in labels.items()))
        for label, count in labels.items():
            wanted[label][best] -= count
        placed[number] = best
    return [placed[item.group] for item in items]


def shuffle_key(seed: int, identity: str) -> str:
    """A key to sort by that looks random and depends on nothing but the seed and the identity."""
    return hashlib.sha256(f"{seed}:{identity}".encode()).hexdigest()


def _share(total: int, fraction: float) -> int:
    share = round(total * fraction)
    return max(1, share) if fraction > 0 and total >= 3 else share
