#!/usr/bin/env python3
"""Checks that every file uses only what its layer may use.

Usage: scripts/check_layers.py

The layers are in docs/design.md, in a block of code that begins with "layers": in each line a layer, a colon, and the layers that it
uses, all of which stand in earlier lines, so that the graph has no circle. A layer is a module (Sources/MODULE, and plugin/LacunaPlugin),
or a folder of one (MODULE/FOLDER).

Two things are checked. A file of a module imports, of the project's modules, only those. A file of a folder names, of the types that
are declared at the top of files of its own module, only those of its own folder and of the layers that its line has.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DECLARATION = re.compile(
    r"^(?:@\w+(?:\([^)]*\))? )*((?:public|package|internal|fileprivate|private|final|indirect) )*"
    r"(?:class|struct|enum|protocol|typealias|actor) (\w+)",
    re.MULTILINE,
)
IMPORT = re.compile(r"^(?:@\w+ )*(?:\w+ )?import (\w+)", re.MULTILINE)


def read_layers(text):
    """The layers with what each may use, in the order of the document."""
    blocks = re.findall(r"^```layers\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if len(blocks) != 1:
        sys.exit(f"docs/design.md has {len(blocks)} blocks of layers, and one is expected")
    layers = {}
    for line in blocks[0].splitlines():
        name, separator, used = line.partition(":")
        name, used = name.strip(), used.split()
        if not separator or name in layers:
            sys.exit(f"docs/design.md: {line!r} is no line of a layer, or the second one of that layer")
        unknown = [other for other in used if other not in layers]
        if unknown:
            sys.exit(f"docs/design.md: {name} uses {', '.join(unknown)}, which does not stand in an earlier line")
        layers[name] = used
    return layers


def without_comments_and_strings(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"//[^\n]*", "", text)
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)


def source_folder(module):
    return ROOT / ("plugin" if module == "LacunaPlugin" else "Sources") / module


def check_imports(layers, modules):
    """Says which files import a module of the project that their own may not use."""
    for module in modules:
        for path in sorted(source_folder(module).rglob("*.swift")):
            for name in IMPORT.findall(path.read_text(encoding="utf-8")):
                if name in modules and name != module and name not in layers[module]:
                    yield f"{path.relative_to(ROOT)} imports {name}, which {module} may not use"


def check_folders(layers, module, folders):
    """Says which files of a module's folders name a type of a folder that theirs may not use."""
    texts, homes = {}, {}
    for path in sorted(source_folder(module).rglob("*.swift")):
        folder = path.parent.name
        if path.parent == source_folder(module) or folder not in folders:
            yield f"{path.relative_to(ROOT)} is in none of the folders of {module} in docs/design.md"
            continue
        text = without_comments_and_strings(path.read_text(encoding="utf-8"))
        texts[path] = (folder, text)
        for match in DECLARATION.finditer(text):
            if "private" not in match.group(0):
                homes[match.group(2)] = folder
    for path, (folder, text) in texts.items():
        allowed = {folder} | {layer.removeprefix(module + "/") for layer in layers[f"{module}/{folder}"]}
        for name in sorted(set(re.findall(r"\b[A-Z]\w*\b", text))):
            if name in homes and homes[name] not in allowed:
                yield f"{path.relative_to(ROOT)} names {name} of {homes[name]}, which {folder} may not use"


def main():
    layers = read_layers((ROOT / "docs/design.md").read_text(encoding="utf-8"))
    modules = [name for name in layers if "/" not in name]
    faults = [f"Sources/{path.name} is no layer in docs/design.md"
              for path in sorted((ROOT / "Sources").iterdir())
              if path.name not in modules and any(path.rglob("*.swift"))]
    faults += check_imports(layers, modules)
    for module in modules:
        folders = [name.split("/")[1] for name in layers if name.startswith(module + "/")]
        if folders:
            faults += check_folders(layers, module, folders)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"layers: {len(layers)} checked, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
