"""Every benchmark, one after another, each in a process of its own: ``make bench``, or ``python -m bench [--json] [NAME ...]``.

The exit status is 1 where a figure is not as it should be, or where a benchmark lacks what it reads.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

BENCHMARKS = {
    "demo": "imports, the command line, indexing and asking the demo",
    "encode": "MiniLM against sentence-transformers, side by side",
    "memory": "how much a process grows over a million texts",
    "quality": "what the built-in models find",
    "speed": "every store at hand beside its own client",
    "stores": "Cranfield on every store at hand, against the oracle",
    "workers": "two workers on the processor: speed, and memory that they share",
}


def main() -> int:
    """Run those that are named, or all."""
    as_json = "--json" in sys.argv[1:]
    names = [argument for argument in sys.argv[1:] if argument != "--json"] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    worst = 0
    results: dict[str, Any] = {}
    for name in names:
        command = [sys.executable, "-m", f"bench.{name}", *(["--json"] if as_json else [])]
        if not as_json:
            print(f"\n== {name}: {BENCHMARKS[name]}", flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE if as_json else None, text=True, check=False)
        worst = max(worst, int(done.returncode != 0))
        if as_json and done.stdout:
            results[name] = json.loads(done.stdout)
    if as_json:
        print(json.dumps(results, indent=2))
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
