"""Write the generated parts of the README again: `make readme`."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
KEPT = Path(__file__).with_name("conformance.json")
NONE = "–"  # noqa: RUF001


def main() -> None:
    """Put each table between its markers."""
    program = Path(sys.executable).with_name("st-connectors")
    stores = subprocess.run([program, "stores", "--markdown"], capture_output=True, text=True, check=True).stdout
    text = README.read_text(encoding="utf-8")
    for name, table in (("stores", stores), ("conformance", conformance(KEPT.read_text(encoding="utf-8")))):
        pattern = rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)"
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}{table}{match[2]}", text, flags=re.DOTALL)
    README.write_text(text, encoding="utf-8")


def conformance(kept: str) -> str:
    """The rows that `make conformance` kept as a table: an engine a row, a group of tests a column."""
    rows = json.loads(kept)
    groups = next(list(row["groups"]) for row in rows if row["groups"])
    lines = [f"| engine | addresses | client | {' | '.join(groups)} |", "|---" * (len(groups) + 3) + "|"]
    for row in rows:
        counts = [cell(*row["groups"][group]) for group in groups] if row["groups"] else [NONE] * len(groups)
        name = row["engine"].rstrip("0123456789").strip()
        engine = f"{name} {row['version']}" if row["version"] else f"{row['engine']}: not verified on an engine"
        lines.append(f"| {engine} | `{row['scheme']}:` | {row['client'] or NONE} | {' | '.join(counts)} |")
    return "\n".join(lines) + "\n"


def cell(passed: int, skipped: int, gaps: int) -> str:
    """How many tests passed, after a plus how many were skipped, and after an exclamation mark how many are known gaps."""
    return f"{passed}{f' +{skipped}' if skipped else ''}{f' !{gaps}' if gaps else ''}"


if __name__ == "__main__":
    main()
