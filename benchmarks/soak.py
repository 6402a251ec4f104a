"""Mixed traffic with faults on every transport, and at the end: is anything left that should be gone?

Usage: python benchmarks/soak.py [--seconds 60] [--transport async-tcp] [--seed 0]

Engines that swap and overflow, providers that fail in every way, clients that leave, requests that make no sense. Every
answer must be whole and right or a proper error. Afterwards no leases, sockets, threads, file descriptors or processes
may be left, and memory must be within 10 % of what it was after warming up. Exits with 1 and a list of what is wrong.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.soak.leaks import MEMORY_GROWTH
from tests.soak.soak import TRANSPORTS, Report, soak
from tests.soak.traffic import Models
from tests.support.tiny_models import build_tiny_model


def show(name: str, report: Report) -> None:
    kinds = sorted(report.tally.kinds.items())
    print(f"{name}: {report.tally.requests:,} requests; stopped in {report.stop_s:.1f} s")
    print("  " + ", ".join(f"{scenario}: {count} {kind}" for (scenario, kind), count in kinds))
    for process, load in report.after.loads.items():
        was = report.before.loads.get(process, load)
        print(
            f"  {process}: {was.rss / 2**20:.1f} MiB, then {load.rss / 2**20:.1f} "
            f"(limit {was.rss / 2**20 * (1 + MEMORY_GROWTH):.1f}); {load.threads} threads, {load.files} files, "
            f"{sum(load.calls.values())} kept connections"
        )
    for problem in report.problems:
        print(f"  WRONG: {problem}")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all transports together")
    parser.add_argument(
        "--transport", choices=TRANSPORTS, action="append", help="only this one; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = arguments.transport or list(TRANSPORTS)
    is_well = True
    with tempfile.TemporaryDirectory(prefix="gws") as directory:
        models = Models(
            build_tiny_model(Path(directory) / "one.gguf"),
            build_tiny_model(Path(directory) / "other.gguf", seed=1, name="other"),
        )
        for name in names:
            report = soak(name, arguments.seconds / len(names), models, Path(directory), arguments.seed)
            show(name, report)
            is_well = is_well and not report.problems
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
