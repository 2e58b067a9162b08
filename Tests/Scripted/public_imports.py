#!/usr/bin/env python3
"""Finds types that the users of a library product cannot name.

public_imports.py REPOSITORY

The compiler lets a public signature name a type of another module only where that is imported with `public import`, since the
package has InternalImportsByDefault. So it is enough to look at those lines: each module that one names must be in the product, or be
one that users depend on for themselves.
"""

import json
import pathlib
import re
import subprocess
import sys

# Logging is swift-log's, the one interface by which Swift programs log, whichever way they do it.
OTHERS = {"Logging"}

root = pathlib.Path(sys.argv[1])
text = subprocess.run(
    ["swift", "package", "--package-path", root, "dump-package"], check=True, stdout=subprocess.PIPE, timeout=100
).stdout
package = json.loads(text)
targets = {target["name"]: target for target in package["targets"]}
settings = {
    name: [list(setting["kind"].values())[0].get("_0") for setting in target.get("settings", [])]
    for name, target in targets.items()
}
libraries = [product for product in package["products"] if product["type"] == {"library": ["automatic"]}]
assert libraries, "the package has no library product"
faults = []
for product in libraries:
    for name in product["targets"]:
        if "InternalImportsByDefault" not in settings[name]:
            faults.append(f"{name}: without InternalImportsByDefault, every import is a public one")
        files = sorted((root / (targets[name].get("path") or f"Sources/{name}")).rglob("*.swift"))
        assert files, f"module {name} has no files"
        for file in files:
            for line in file.read_text().splitlines():
                found = re.match(r"\s*(?:@\w+\s+)*public import (?:\w+ )?(\w+)", line)
                if found and found[1] not in OTHERS.union(product["targets"]):
                    faults.append(f"{file.relative_to(root)}: module {found[1]} is not in product {product['name']}")
print("\n".join(faults) or f"{len(libraries)} products: nothing found")
sys.exit(1 if faults else 0)
