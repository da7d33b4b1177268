"""Promises of habits and journeys: what is new, what is impossible, in whatever order it is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditship.errors import ConfigurationError
from indexer.enrich.habits import (
    DAY_MS,
    IMPOSSIBLE_TRAVEL,
    NEW_COUNTRY,
    NEW_NETWORK,
    VALUES_MAX,
    Habit,
    Known,
    Origin,
    WarmUp,
)
from indexer.enrich.journey import GAP_MS, STAYS_MAX, Stay, distance_km, is_far, is_impossible, leap, learn
from indexer.enrich.relays import relay_networks
from indexer.store.embedded import EmbeddedReader
from indexer.watch import Watch
from indexer.whereabouts import Whereabouts

NOW_MS = 1_795_458_000_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
BERLIN = Origin("DE", "Germany", 3320, "Deutsche Telekom", (52.52, 13.405), "Berlin")
POTSDAM = Origin("DE", "Germany", 3320, "Deutsche Telekom", (52.4, 13.06), "Potsdam")
LISBON = Origin("PT", "Portugal", 3243, "MEO", (38.722, -9.139), "Lisbon")
SAO_PAULO = Origin("BR", "Brazil", 27699, "", (-23.551, -46.633), "São Paulo")
PLACES = (BERLIN, POTSDAM, LISBON, SAO_PAULO)
RULE = WarmUp()
NOBODY_ASKS = EmbeddedReader(Path("nowhere"), lambda: NOW_MS)


def habit(*successes: tuple[Origin, int]) -> Habit:
    found = Habit(NOW_MS, Known.of((), 0), Known.of((), 0), [])
    for origin, time_ms in successes:
        found.learn(origin, time_ms)
    return found


def tags(known: Habit, origin: Origin, time_ms: int, *, succeeded: bool = True, rule: WarmUp = RULE) -> set[str]:
    found = known.finding(origin, time_ms, rule, succeeded=succeeded)
    usual = known.copy().is_usual(origin, time_ms, succeeded)
    assert not (usual and found), "the short way and the long way differ"
    return set(found.tags) if found else set()


def test_a_country_and_a_network_are_new_once() -> None:
    known = habit((BERLIN, NOW_MS - 8 * DAY_MS))
    assert tags(known, BERLIN, NOW_MS) == set()
    assert tags(known, SAO_PAULO, NOW_MS) == {NEW_COUNTRY, NEW_NETWORK}
    known.learn(SAO_PAULO, NOW_MS)
    assert tags(known, SAO_PAULO, NOW_MS + 1) == set()


def test_what_failed_is_told_each_time_and_so_is_the_first_that_succeeds() -> None:
    known = habit((BERLIN, NOW_MS - 8 * DAY_MS))
    found = known.finding(SAO_PAULO, NOW_MS, RULE, succeeded=False)
    assert found is not None
    assert found.reason == "no success from Brazil in 30 days; no success from AS27699 in 30 days"
    assert found.least == "warning"
    found = known.finding(SAO_PAULO, NOW_MS + 1, RULE, succeeded=True)
    assert found is not None
    assert found.reason == "first time from Brazil in 30 days; first time from AS27699 in 30 days"


def test_a_new_network_alone_is_told_but_no_warning() -> None:
    known = habit((BERLIN, NOW_MS - 8 * DAY_MS))
    other = Origin("DE", "Germany", 6805, "Telefónica Germany", BERLIN.point, "Berlin")
    found = known.finding(other, NOW_MS, RULE, succeeded=True)
    assert found is not None
    assert (found.tags, found.least) == ((NEW_NETWORK,), "info")
    assert found.reason == "first time from Telefónica Germany (AS6805) in 30 days"


@pytest.mark.parametrize(
    ("age_ms", "events", "is_told"),
    [
        (7 * DAY_MS - 1, 1, False),
        (7 * DAY_MS, 1, True),
        (1, 49, False),
        (1, 50, True),
    ],
)
def test_nothing_is_new_before_the_warm_up(age_ms: int, events: int, is_told: bool) -> None:
    known = Habit(NOW_MS, Known.of([("DE", NOW_MS - age_ms)], events), Known.of([], 0), [])
    assert tags(known, SAO_PAULO, NOW_MS) == ({NEW_COUNTRY} if is_told else set())
    assert tags(habit(), SAO_PAULO, NOW_MS) == set()


def test_an_event_older_than_all_that_is_known_is_not_new() -> None:
    known = Habit(NOW_MS, Known.of([("DE", NOW_MS)], 1000), Known.of([], 0), [])
    assert tags(known, SAO_PAULO, NOW_MS - DAY_MS) == set()
    assert tags(known, BERLIN, NOW_MS - DAY_MS) == set()


def test_the_first_in_time_is_told_even_if_a_later_one_came_before_it() -> None:
    known = habit((BERLIN, NOW_MS - 8 * DAY_MS), (SAO_PAULO, NOW_MS))
    assert tags(known, SAO_PAULO, NOW_MS - MINUTE_MS) == {NEW_COUNTRY, NEW_NETWORK}
    assert tags(known, SAO_PAULO, NOW_MS) == {NEW_COUNTRY, NEW_NETWORK}, "delivered again, it is judged the same"
    assert tags(known, SAO_PAULO, NOW_MS + 1) == set()


def test_an_unknown_country_or_network_is_never_new() -> None:
    known = habit((BERLIN, NOW_MS - 8 * DAY_MS))
    assert tags(known, Origin(), NOW_MS) == set()
    assert tags(known, Origin("DE"), NOW_MS) == set()


def test_a_journey_nobody_can_make() -> None:
    known = habit((BERLIN, NOW_MS - 8 * DAY_MS), (LISBON, NOW_MS - 2 * DAY_MS), (BERLIN, NOW_MS))
    found = known.finding(LISBON, NOW_MS + 90 * MINUTE_MS, RULE, succeeded=True)
    assert found is not None
    assert found.tags == (IMPOSSIBLE_TRAVEL,)
    assert found.least == "warning"
    assert found.reason == "impossible journey: 2,312 km from Berlin in 90 min"
    assert tags(known, LISBON, NOW_MS + 4 * HOUR_MS) == set()
    assert tags(known, POTSDAM, NOW_MS) == set(), "nearer than 500 km"
    assert tags(known, LISBON, NOW_MS + 90 * MINUTE_MS, succeeded=False) == set()
    nowhere = Origin("PT", "Portugal", 3243, "MEO")
    assert tags(known, nowhere, NOW_MS + 90 * MINUTE_MS) == set(), "a relay, or no city"


def test_what_is_remembered_of_one_actor_is_bounded() -> None:
    known = habit()
    for number in range(2 * VALUES_MAX):
        known.learn(Origin("DE", network=number, point=(number % 90, 0.0)), NOW_MS + number * HOUR_MS)
    assert len(known.networks.firsts) <= VALUES_MAX + 1
    assert len(known.trail) == STAYS_MAX
    assert len(Known.of([(number, number) for number in range(1000)], 1000).firsts) == VALUES_MAX + 1


def test_distances() -> None:
    assert distance_km((52.52, 13.405), (40.713, -74.006)) == pytest.approx(6385, rel=0.01)
    assert distance_km((0.0, 0.0), (0.0, 180.0)) == pytest.approx(20_015, rel=0.01)
    assert distance_km((10.0, 20.0), (10.0, 20.0)) == 0


def test_the_relays_that_are_built_in() -> None:
    assert {14593, 9009, 22616} < relay_networks()


def test_relays_of_an_operators_own(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('network = [{ number = 64500, kind = "vpn" }]')
    assert relay_networks(own) == {64500}
    own.write_text('network = [{ number = 0, kind = "vpn" }, { number = 1, kind = "sea" }]')
    with pytest.raises(ConfigurationError, match=r"own.toml: 'network.0.number'.*\n.*'network.1.kind'"):
        relay_networks(own)


Moment = tuple[Origin, int]
moments = st.lists(
    st.tuples(st.sampled_from(PLACES), st.integers(0, 600).map(lambda minute: NOW_MS + minute * MINUTE_MS)), max_size=10
)


def impossible(one: Moment, other: Moment) -> bool:
    return is_impossible(distance_km(one[0].point or (0, 0), other[0].point or (0, 0)), abs(one[1] - other[1]))


def reference_leap(known: list[Moment], origin: Origin, time_ms: int) -> bool:
    """By looking at every success: the neighbours in time, on both sides."""
    ordered = sorted(known, key=lambda each: each[1])
    before = [each for each in ordered if each[1] <= time_ms]
    after = [each for each in ordered if each[1] > time_ms]
    this = origin, time_ms
    if before and impossible(before[-1], this):
        return True
    if not after or not impossible(this, after[0]):
        return False
    return not (before and before[-1][0] is origin and impossible(before[-1], after[0]))


@given(moments)
def test_no_journey_is_missed_that_every_single_success_would_tell_and_none_is_made_up(successes: list[Moment]) -> None:
    """One success a minute at most: the order within one is nobody's. One that is known may be told again."""
    trail: list[Stay] = []
    known: list[Moment] = []
    taken: set[int] = set()
    for origin, time_ms in successes:
        assert origin.point is not None
        if time_ms in taken:
            continue
        taken.add(time_ms)
        told = leap(trail, time_ms, origin.point) is not None
        assert told or not reference_leap(known, origin, time_ms)
        if told:
            assert any(impossible(each, (origin, time_ms)) for each in known)
            assert is_far(trail, time_ms, origin.point)
        learn(trail, time_ms, origin.point, origin.city)
        known.append((origin, time_ms))
        assert [stay.first_ms for stay in trail] == sorted(stay.first_ms for stay in trail)


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.integers(0, 60).map(lambda day: NOW_MS + day * DAY_MS // 2), st.booleans()),
        max_size=30,
    )
)
def test_whatever_the_order_the_first_success_from_a_country_is_told(events: list[tuple[Origin, int, bool]]) -> None:
    """Against a reference that keeps everything: new is what no older success that is known has."""
    known = habit()
    successes: list[Moment] = []
    rule = WarmUp(days=7, events=1 << 30)
    for origin, time_ms, succeeded in events:
        past = [each for each in successes if each[1] < time_ms]
        is_warm = bool(past) and time_ms - min(each[1] for each in past) >= 7 * DAY_MS
        for tag, key in ((NEW_COUNTRY, "country"), (NEW_NETWORK, "network")):
            is_new = all(getattr(each[0], key) != getattr(origin, key) for each in past)
            assert (tag in tags(known, origin, time_ms, succeeded=succeeded, rule=rule)) == (is_new and is_warm)
        if succeeded:
            known.learn(origin, time_ms)
            successes.append((origin, time_ms))


@given(moments, moments)
def test_two_that_are_merged_know_what_both_know(one: list[Moment], other: list[Moment]) -> None:
    both = habit(*one).merged(habit(*other), 0)
    whole = habit(*one, *other)
    assert both.countries.firsts == whole.countries.firsts
    assert both.networks.firsts == whole.networks.firsts
    assert [stay.first_ms for stay in both.trail] == sorted(stay.first_ms for stay in both.trail)


@given(moments, st.integers(0, 700))
def test_the_short_way_learns_what_the_long_way_would(successes: list[Moment], minute: int) -> None:
    time_ms = NOW_MS + minute * MINUTE_MS
    for origin in PLACES:
        short, long = habit(*successes), habit(*successes)
        if short.is_usual(origin, time_ms, succeeded=True):
            assert long.finding(origin, time_ms, RULE, succeeded=True) is None
            long.learn(origin, time_ms)
            assert (short.countries, short.networks, short.trail) == (long.countries, long.networks, long.trail)


@given(st.lists(st.lists(st.tuples(st.sampled_from(PLACES), st.integers(0, 300), st.booleans()), max_size=6), max_size=4))
def test_blocks_are_judged_as_the_reference_judges_them(blocks: list[list[tuple[Origin, int, bool]]]) -> None:
    """One actor, two minutes apart at least, in any order, over several blocks; the reference keeps everything."""
    oldest = BERLIN, NOW_MS - DAY_MS
    worker = Whereabouts(NOBODY_ASKS, WarmUp(days=0, events=1), frozenset(), clock=lambda: NOW_MS)
    worker.put(("org", "ada"), Habit(NOW_MS, Known.of([("DE", oldest[1])], 1), Known.of([(3320, oldest[1])], 1), []))
    learn(worker._habits["org", "ada"].trail, oldest[1], (52.52, 13.405), "Berlin")
    successes = [oldest]
    taken: set[int] = set()
    for events in blocks:
        watch = Watch(worker, NOW_MS)
        for origin, slot, succeeded in events:
            if slot in taken:
                continue
            taken.add(slot)
            time_ms = NOW_MS - 600 * MINUTE_MS + slot * 2 * MINUTE_MS
            past = {each[0].country for each in successes if each[1] < time_ms}
            found = watch.judge(("org", "ada"), origin, time_ms, succeeded=succeeded)
            told = set(found.tags if found else ())
            assert told - {IMPOSSIBLE_TRAVEL} == (set() if origin.country in past else {NEW_COUNTRY, NEW_NETWORK})
            is_journey = succeeded and any(impossible(each, (origin, time_ms)) for each in successes)
            assert is_journey or IMPOSSIBLE_TRAVEL not in told
            assert IMPOSSIBLE_TRAVEL in told or not (succeeded and reference_leap(successes, origin, time_ms))
            if succeeded:
                successes.append((origin, time_ms))
        watch.learn()


def test_a_stay_ends_where_a_journey_would_fit() -> None:
    trail: list[Stay] = []
    for time_ms in (0, GAP_MS, 2 * GAP_MS + 1):
        learn(trail, time_ms, (52.52, 13.405), "Berlin")
    assert [(stay.first_ms, stay.last_ms) for stay in trail] == [(0, GAP_MS), (2 * GAP_MS + 1, 2 * GAP_MS + 1)]
