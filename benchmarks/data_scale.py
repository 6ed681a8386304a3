"""Peak memory of loading, grouping and splitting many events, measured in a fresh process.

    python benchmarks/data_scale.py --rows 10000000

Prints the sizes, the peak resident memory and its share of 4 GiB, seconds, versions and the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

LIMIT = 4 * 1024**3


def make(path: Path, rows: int, users: int, items: int) -> None:
    """Writes events of a long-tailed catalogue, int64 ids far apart, in random order of users."""
    rng = np.random.default_rng(0)
    frame = {
        "user_id": rng.integers(0, users, rows) * 7919 + 10**12,
        "item_id": np.minimum(rng.zipf(1.2, rows), 2**40) % items * 104_729 + 10**15,
        "timestamp": 1_600_000_000 + rng.integers(0, 10**8, rows),
    }
    pl.DataFrame(frame).write_parquet(path)


def load(path: Path, dedup: str, k_core: int) -> dict[str, object]:
    """Loads and splits, and tells what it took."""
    from genrec.data import leave_one_out, load_data

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    data = load_data(path, dedup=dedup, k_core=k_core)  # type: ignore[arg-type]  # a plain string of the command line
    split = leave_one_out(data)
    split.popularity()
    content = data.content_hash
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "dedup": dedup,
        "k_core": k_core,
        **split.protocol()["counts"],
        "peak_rss_bytes": peak,
        "share_of_4_GiB": round(peak / LIMIT, 3),
        "rss_before_bytes": before * (1 if sys.platform == "darwin" else 1024),
        "seconds": round(time.perf_counter() - start, 1),
        "content_hash": content[:12],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        path, dedup, k_core = json.loads(args.load)
        print(json.dumps(load(Path(path), dedup, k_core)))
        return
    versions = {"python": platform.python_version(), "polars": pl.__version__, "numpy": np.__version__}
    print(json.dumps(versions | {"machine": platform.platform(), "cores": os.cpu_count(), "rows": args.rows}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        make(path, args.rows, args.users, args.items)
        for dedup, k_core in (("none", 0), ("first", 5)):
            request = json.dumps([str(path), dedup, k_core])
            subprocess.run([sys.executable, __file__, "--load", request], check=True)


if __name__ == "__main__":
    main()
