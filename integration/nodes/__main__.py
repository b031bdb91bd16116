"""``python -m integration.nodes``: run a node until Ctrl-C, or only assemble nodes."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time

from integration.nodes.assemble import AssemblyError, assemble
from integration.nodes.choose import engine_named
from integration.nodes.recipes import RECIPES
from integration.nodes.run import StartError, run


def main() -> int:
    """Return the exit status: 0, or 1 with the reason on standard error."""
    options = _parser().parse_args()
    try:
        if options.what == "assemble":
            _assemble(options.engines or list(RECIPES), as_json=options.json)
        elif options.engines:
            _parser().error(f"one engine at a time, or `assemble {options.what} {' '.join(options.engines)}`")
        else:
            _run(options.what, options.port, as_json=options.json)
    except (AssemblyError, StartError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m integration.nodes", description="Real engines without Docker.")
    parser.add_argument("what", help=f"`assemble`, or the engine to run: {', '.join(RECIPES)}")
    parser.add_argument("engines", nargs="*", help="with `assemble`: which ones (all)")
    parser.add_argument("--port", type=int, default=0, help="port of the node (a free one)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    return parser


def _assemble(names: list[str], *, as_json: bool) -> None:
    for name in names:
        started = time.monotonic()
        home = assemble(RECIPES[_assembled(name)])
        seconds = round(time.monotonic() - started, 1)
        _tell({"engine": name, "home": str(home), "seconds": seconds}, f"{name}: {home} ({seconds} s)", as_json=as_json)


def _run(name: str, port: int, *, as_json: bool) -> None:
    # A supervisor ends programs with SIGTERM; the node must stop as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with run(RECIPES[_assembled(name)], port=port) as node:
            facts = {"engine": name, "url": node.url, "process": node.process, "boot_s": round(node.boot_s, 1)}
            _tell(facts, f"{name} answers at {node.url} after {facts['boot_s']} s; Ctrl-C ends it", as_json=as_json)
            signal.pause()
    except KeyboardInterrupt:
        return


def _assembled(name: str) -> str:
    engine = engine_named(name)
    if engine not in RECIPES:
        raise ValueError(f"{engine} cannot be assembled; these can: {', '.join(RECIPES)}")
    return engine


def _tell(facts: dict[str, object], sentence: str, *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(facts) if as_json else sentence) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
