"""Write into the config files of this pack which sources they are of, after an edit of a kernel."""

import ast
import re
from pathlib import Path

from kernelpkg.packs.sources import source_digest

ROOT = Path(__file__).parent

for kernel in sorted(ROOT.glob("kernels/*/kernel.py")):
    digest = source_digest(ast.parse(kernel.read_text()))
    for file in (ROOT / "configs" / kernel.parent.name).glob("*.json"):
        text = re.sub(r'"source": "[^"]*"', f'"source": "{digest}"', file.read_text())
        file.write_text(text)
