"""Fetches the libraries of the dashboard's page from npm's registry: `python -m tools.vendor [REGISTRY]`.

The page has no build step, and a browser resolves no bare import: `from "preact"` becomes `from "./preact.js"`. What
came from where stands in `vendor.toml`, with the hash of each file as it is here; a test compares them.
"""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "src" / "comfyload" / "web" / "static" / "vendor"
TESTS = ROOT / "tests" / "browser" / "vendor"
PREFIX = "package/"


class Library(NamedTuple):
    """`files`: our name of a file to its path in the package. `ending`: what is written after a script."""

    name: str
    version: str
    files: dict[str, str]
    ending: str = ""


PAGES = [
    Library("preact", "11.2.0", {"preact.js": "dist/preact.mjs", "preact-hooks.js": "hooks/dist/hooks.mjs"}),
    Library("htm", "3.1.1", {"htm.js": "dist/htm.mjs"}),
    Library("@preact/signals-core", "1.14.5", {"signals-core.js": "dist/signals-core.mjs"}),
    Library("@preact/signals", "2.11.4", {"signals.js": "dist/signals.mjs"}),
    Library(
        "uplot",
        "1.6.32",
        {"uplot.js": "dist/uPlot.iife.min.js", "uplot.css": "dist/uPlot.min.css"},
        ending="\nexport default uPlot;\n",
    ),
]
BROWSER_TESTS = [Library("axe-core", "4.14.1", {"axe.js": "axe.min.js"})]
MODULES = {"preact": "./preact.js", "preact/hooks": "./preact-hooks.js", "@preact/signals-core": "./signals-core.js"}
SOURCE_MAP = re.compile(r"\n?//# sourceMappingURL=\S+\s*$")


def main(arguments: list[str]) -> None:
    registry = arguments[0] if arguments else _said("npm", "config", "get", "registry")
    for folder, libraries in ((PAGE, PAGES), (TESTS, BROWSER_TESTS)):
        folder.mkdir(parents=True, exist_ok=True)
        entries = [_vendored(registry.rstrip("/"), library, folder) for library in libraries]
        text = "# Written by `python -m tools.vendor`. sha256: of the file beside this one.\n\n" + "\n".join(entries)
        (folder / "vendor.toml").write_text(text, encoding="utf-8")


def wrong_files(folder: Path) -> list[str]:
    """What does not match the folder's `vendor.toml`, in words; [] when all does."""
    listed = tomllib.loads((folder / "vendor.toml").read_text(encoding="utf-8"))["library"]
    hashes = {file["name"]: file["sha256"] for library in listed for file in library["files"]}
    present = {path.name for path in folder.iterdir()} - {"vendor.toml"}
    wrong = [f"{name} is listed and absent" for name in hashes.keys() - present]
    wrong += [f"{name} is present and not listed" for name in present - hashes.keys()]
    for name in sorted(hashes.keys() & present):
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != hashes[name]:
            wrong.append(f"{name} is not the file that was fetched")
    return sorted(wrong)


def _vendored(registry: str, library: Library, folder: Path) -> str:
    """Write the library's files and its licence into the folder; return its entry of `vendor.toml`."""
    about = json.loads(_fetched(f"{registry}/{quote(library.name, safe='@')}/{library.version}"))
    packed = _fetched(about["dist"]["tarball"])
    algorithm, _, expected = about["dist"]["integrity"].partition("-")
    if base64.b64encode(hashlib.new(algorithm, packed).digest()).decode() != expected:
        raise SystemExit(f"{library.name} {library.version}: the package is not the one that the registry lists")
    short = library.name.removeprefix("@").replace("/", "-")
    files = {**library.files, f"{short}.LICENSE": "LICENSE"}
    entries = []
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for name, path in files.items():
            member = archive.extractfile(PREFIX + path)
            assert member is not None, f"{library.name} has no {path}"
            content = member.read()
            if name.endswith(".js"):
                content = _for_a_browser(content.decode(), library.ending).encode()
            (folder / name).write_bytes(content)
            entries.append(f'  {{ name = "{name}", sha256 = "{hashlib.sha256(content).hexdigest()}" }},\n')
    return (
        f'[[library]]\nname = "{library.name}"\nversion = "{library.version}"\nlicense = "{about["license"]}"\n'
        f"files = [\n{''.join(entries)}]\n"
    )


def _for_a_browser(script: str, ending: str) -> str:
    for name, path in MODULES.items():
        script = script.replace(f'from"{name}"', f'from"{path}"')
    return SOURCE_MAP.sub("\n", script) + ending


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1:])
