"""kill -9 of alerting and of its receiver at random: every cause is told, none more than twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from alerting import Alerting, critical

ROUNDS = 14
CHANNEL = '[[channel]]\nname = "live"\nkind = "webhook"\nurl = "http://127.0.0.1:{live}/"\ntimeout_s = 5\n'


@pytest.mark.slow
def test_every_cause_is_told_at_least_once_and_never_more_than_twice(tmp_path: Path) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    chance = random.Random(seed)
    with Alerting(tmp_path) as world:
        world.configure(CHANNEL)
        running = {"receiver": world.receive("live"), "alerts": world.started()}
        told = 0
        for _ in range(ROUNDS):
            victims = chance.choice([["alerts"], ["alerts"], ["receiver"], ["alerts", "receiver"]])
            number = chance.randint(1, 5)
            world.store.append([critical(at) for at in range(told, told + number)])
            told += number
            time.sleep(chance.uniform(0.0, 0.4))
            for victim in victims:
                world.kill(running[victim])
            if chance.random() < 0.3:
                world.store.append([critical(told)])  # while it is dead
                told += 1
            for victim in victims:
                running[victim] = world.receive("live") if victim == "receiver" else world.alerts()
            world.await_told(told)  # and settled: a second kill could otherwise fall upon the same message
        ended = world.stop(running["alerts"])  # killed and started a moment ago, it may not have begun to listen for signals
        assert ended in (0, -signal.SIGTERM), world.said()
        ids = Counter(each["headers"]["Auditship-Id"] for each in world.received())
        assert len(ids) == told  # a repeat has the same id: with it, each is told exactly once
        assert max(ids.values()) <= 2
