"""Write the generated parts of the README again: `make readme`."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def main() -> None:
    """Put what `st-connectors stores --markdown` prints between the markers."""
    program = Path(sys.executable).with_name("st-connectors")
    table = subprocess.run([program, "stores", "--markdown"], capture_output=True, text=True, check=True).stdout
    text = README.read_text(encoding="utf-8")
    pattern = r"(<!-- stores:begin[^>]*-->\n).*?(<!-- stores:end -->)"
    README.write_text(
        re.sub(pattern, lambda match: f"{match[1]}{table}{match[2]}", text, flags=re.DOTALL), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
