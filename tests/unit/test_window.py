"""Promises of the window over bulks: it finds what a cluster takes, and never leaves its bounds."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from indexer.store.elasticsearch.window import BYTES_MIN, BYTES_STEP, Window

MIB = 1 << 20


def full(window: Window) -> int:
    """Enters until there is no room; returns how many are under way then."""
    count = 0
    while window.enter():
        count += 1
    return count


def test_begins_with_two_bulks_and_grows_by_one_a_round() -> None:
    window = Window(8, MIB)
    assert full(window) == 2
    rounds = [2]
    for _ in range(12):
        for _ in range(window.bulks):
            window.taken(MIB, window.epoch)
        full(window)
        rounds.append(window.bulks)
    assert all(after - before in (0, 1) for before, after in pairwise(rounds))
    assert rounds[-1] == 8


def test_one_who_leaves_makes_room_for_one() -> None:
    window = Window(2, MIB)
    assert full(window) == 2
    window.leave()
    assert full(window) == 1


def test_a_push_back_halves_both_once_for_all_that_was_under_way() -> None:
    window = Window(4, 8 * MIB)
    for _ in range(20):
        full(window)
        window.taken(8 * MIB, window.epoch)
    assert (window.bulks, window.bytes) == (4, 8 * MIB)
    sent_in = window.epoch
    assert window.pushed_back(sent_in)
    assert not window.pushed_back(sent_in)
    assert (window.bulks, window.bytes) == (2, 4 * MIB)
    assert window.pushed_back(window.epoch)
    assert (window.bulks, window.bytes) == (1, 2 * MIB)


def test_what_was_sent_before_a_push_back_widens_nothing_after_it() -> None:
    window = Window(4, 8 * MIB)
    full(window)
    sent_in = window.epoch
    window.pushed_back(sent_in)
    window.taken(8 * MIB, sent_in)
    assert (window.bulks, window.bytes) == (1, 4 * MIB)


def test_bytes_grow_in_steps_with_bulks_that_were_large_only() -> None:
    window = Window(4, 8 * MIB)
    window.pushed_back(window.epoch)
    window.taken(MIB, window.epoch)
    assert window.bytes == 4 * MIB
    window.taken(2 * MIB, window.epoch)
    assert window.bytes == 4 * MIB + BYTES_STEP


def test_a_window_that_is_not_used_does_not_grow() -> None:
    window = Window(8, MIB)
    for _ in range(100):
        assert window.enter()
        window.taken(MIB, window.epoch)
        window.leave()
    assert window.bulks == 2


def test_finds_what_a_cluster_takes_and_stays_near_it() -> None:
    window, can_take = Window(64, 8 * MIB), 6 * 4 * MIB
    seen = []
    for number in range(2000):
        full(window)
        if window.bulks * window.bytes > can_take:
            window.pushed_back(window.epoch)
        else:
            window.taken(window.bytes, window.epoch)
        if number > 200:
            seen.append(window.bulks * window.bytes)
    assert max(seen) < 2 * can_take
    assert sum(seen) / len(seen) > can_take / 4


@given(
    st.integers(1, 64),
    st.integers(MIB, 90 * MIB),
    st.lists(st.tuples(st.sampled_from(["enter", "leave", "taken", "back", "late"]), st.integers(0, 90 * MIB))),
)
def test_never_leaves_its_bounds(bulks_max: int, bytes_max: int, steps: list[tuple[str, int]]) -> None:
    window = Window(bulks_max, bytes_max)
    under_way = 0
    for step, size in steps:
        match step:
            case "enter":
                room = under_way < window.bulks
                assert window.enter() is room
                under_way += room
            case "leave" if under_way:
                window.leave()
                under_way -= 1
            case "taken":
                window.taken(size, window.epoch)
            case "back":
                window.pushed_back(window.epoch)
            case "late":
                window.pushed_back(window.epoch - 1)
        assert 1 <= window.bulks <= bulks_max
        assert BYTES_MIN <= window.bytes <= bytes_max
