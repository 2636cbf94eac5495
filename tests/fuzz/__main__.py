"""Fuzz the C modules: `python -m fuzz --seconds 60`, in the folder tests.

Prints the seed and what was tried. On a difference the input is written to `--out`, and the exit code is 1. A round is
the same whenever it is repeated; after a crash the file `round` in `--out` has the arguments that repeat the last one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

from fuzz.targets import TARGETS, Finding, Tally
from trailsift import _native


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz the C modules against their Python twins.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=None, help="stop after so many rounds")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="folder for what differs")
    options = parser.parse_args(arguments)
    if not _native.available():
        print("fuzz: the C modules are not built", file=sys.stderr)
        return 2
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"fuzz: seed {seed}", flush=True)
    names = options.target or list(TARGETS)
    weights = [TARGETS[name][1] for name in names]
    tally, findings, number = Tally(), 0, options.first
    start = time.monotonic()
    with (options.out / "round").open("w") as position:
        while time.monotonic() < start + options.seconds and number - options.first != options.rounds:
            rng = random.Random(f"{seed}/{number}")
            position.seek(0)
            position.write(f"--seed {seed} --first {number} --rounds 1 \n")
            position.flush()
            name = rng.choices(names, weights)[0]
            finding = TARGETS[name][0](rng, tally)
            if finding is not None:
                findings += 1
                report(finding, name, options.out / f"{name}-{seed}-{number}.json")
            number += 1
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(tally.items()))
    print(
        f"fuzz: {number - options.first:,} rounds in {time.monotonic() - start:.0f} s: {counts}; {findings} differences"
    )
    return 1 if findings else 0


def report(finding: Finding, target: str, path: Path) -> None:
    """Write an input that shows a difference, in the form of tests/fuzz/cases."""
    case = {"target": target, "reason": finding.reason, "data": [piece.decode("latin-1") for piece in finding.data]}
    path.write_text(json.dumps(case, indent=1) + "\n")
    print(f"fuzz: {finding.reason[:500]}\nfuzz: input in {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
