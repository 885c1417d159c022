"""Checks the types of the dashboard's modules: `python -m tools.check_page [TSC]`. The page itself needs no TypeScript.

The modules are copied, because in their place the compiler would read the libraries, not our declarations of them.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = ROOT / "src" / "comfyload" / "web" / "static" / "js"
TYPES = ROOT / "tools" / "page_types" / "vendor"
OPTIONS = {
    "compilerOptions": {
        "allowJs": True,
        "checkJs": True,
        "noEmit": True,
        "strict": True,
        "types": [],
        "target": "es2023",
        "module": "es2022",
        "moduleResolution": "bundler",
        "lib": ["es2023", "dom", "dom.iterable"],
    },
    "include": ["js/**/*.js"],
}


def main(tsc: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(MODULES, copy / "js")
        shutil.copytree(TYPES, copy / "vendor")
        (copy / "tsconfig.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
        return subprocess.run([tsc, "-p", "."], cwd=copy, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "tsc"))
