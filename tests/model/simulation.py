"""The world, driven by a seed: ``python tests/model/simulation.py --seed 1234`` or ``--seeds 500``."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from world import World

STEPS = 250
NAMES = ("a.log", "b.log", "c.log")
ANSWERS = ("stored",) * 6 + ("lost answer", "lost answer", "no answer", "busy", "refused", "too large")

RARE = (
    "rotate", "rotate", "truncate", "delete", "replace", "kill_agent", "kill_agent", "tear_checkpoint", "lose_power",
    "roll_over", "roll_over", "clock",
)  # fmt: skip


def run(seed: int) -> World:
    """One seed's world, to its end.

    Raises:
        AssertionError: a promise was broken; names the seed.
    """
    chance = random.Random(seed)
    world = World(chance)
    try:
        world.machine.failing = chance.choice((0.0, 0.0, 0.02, 0.1))
        world.cluster.failing = chance.choice((0.0, 0.05, 0.3))
        for _ in range(STEPS):
            step(world, chance)
            world.check_stored()
        world.heal()
        world.check()
    except Exception as error:
        error.add_note(f"python tests/model/simulation.py --seed {seed}")
        raise
    world.fired["failed call"] += world.machine.failed
    world.fired += world.cluster.fired
    assert world.fired, f"seed {seed}: no fault fired, so nothing was shown"
    return world


def step(world: World, chance: random.Random) -> None:
    """Something happens."""
    name = chance.choice(NAMES)
    kind = chance.random()
    if kind < 0.30:
        world.turn()
    elif kind < 0.50:
        world.answer(chance.randrange(8), chance.choice(ANSWERS))
    elif kind < 0.60:
        world.keep()
    elif kind < 0.80:
        world.write(name, chance.randint(1, 12), header=chance.random() < 0.5)
    else:
        rare(world, chance, name)


def rare(world: World, chance: random.Random, name: str) -> None:
    """A fault, or what rotating tools do."""
    what = chance.choice(RARE)
    world.fired[what] += 1
    if what in ("rotate", "truncate", "delete", "replace"):
        getattr(world, what)(name)
    elif what == "clock":
        world.machine.clock_ns += chance.choice((-86_400, 86_400)) * 1_000_000_000
    else:
        getattr(world, what)()


def main() -> int:
    """Runs seeds and counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, default=200)
    options = parser.parse_args()
    logging.getLogger("auditship").setLevel(logging.CRITICAL)
    fresh = random.SystemRandom()
    seeds = [options.seed] if options.seed is not None else [fresh.randrange(10**9) for _ in range(options.seeds)]
    fired: Counter[str] = Counter()
    written = failed = 0
    for seed in seeds:
        try:
            world = run(seed)
        except Exception as error:
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
            if options.seed is not None:
                raise
            continue
        written += world.written.total()
        fired += world.fired
    print(json.dumps({"figure": "simulation", "seeds": len(seeds), "failed": failed, "written": written, "fired": dict(fired)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
