"""Writes what is in an image and under which licences: usr/share/doc/llm-fleet/{sbom.cdx.json,licenses.txt} below ROOT.

usage: sbom.py PROGRAM ROOT DEBIAN-PACKAGE...

The first is CycloneDX. Both hold the crates that are linked into the program, with the features that it is built with
for this platform, as Cargo itself resolves them; the Rust standard library; and the Debian packages that files of the
image come from. What is used only to build (macros, build scripts, tests) is not in the image and not listed. Equal
input gives equal output: there is no time in it, and the serial number is derived from the content.
"""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid
from urllib.parse import quote

# Both are built at once, which decides the features of what they share: see images.sh.
PROGRAMS = ["llm-fleet-operator", "llm-fleet-runtime"]
LICENCE_FILE = re.compile(r"(un)?(licen[cs]e|copying|copyright|notice)", re.IGNORECASE)
COMMON_LICENCE = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9])")
RUST_COPYRIGHT = "usr/share/doc/rust-std/COPYRIGHT-library.html"


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def spdx(declared):
    """A licence as its crate declares it; old crates separate alternatives by a slash."""
    return re.sub(r"\s*/\s*", " OR ", declared)


def linked(program, platform):
    """The crates in the program, each with those that it uses itself. A crate is (name, version)."""
    selected = [argument for name in PROGRAMS for argument in ("--package", name)]
    tree = output(
        "cargo", "tree", "--locked", "--offline", "--edges", "normal,no-proc-macro", "--target", platform,
        "--prefix", "depth", "--no-dedupe", "--format", " {p}", *selected,
    )  # fmt: skip
    uses, path, ours = {}, [], False
    for line in filter(None, tree.splitlines()):
        depth, name, version = line.split()[:3]
        crate = (name, version.removeprefix("v"))
        if depth == "0":
            ours = name == program
        if not ours:
            continue
        path[int(depth) :] = [crate]
        uses.setdefault(crate, set())
        if len(path) > 1:
            uses[path[-2]].add(crate)
    return uses


def crates(uses, platform):
    """A component and the texts of its licences per crate."""
    # It wants to see crates that no build has fetched, and so may have to fetch them.
    metadata = json.loads(
        output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", platform)
    )
    packages = {(package["name"], package["version"]): package for package in metadata["packages"]}
    lock = tomllib.loads(pathlib.Path("Cargo.lock").read_text())
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    for crate in sorted(uses):
        package, (name, version) = packages[crate], crate
        component = {
            "type": "library", "bom-ref": reference(package), "name": name, "version": version,
            "purl": reference(package), "licenses": [{"expression": spdx(package["license"])}],
        }  # fmt: skip
        if package["authors"]:
            component["author"] = ", ".join(package["authors"])
        if checksums[crate]:
            component["hashes"] = [{"alg": "SHA-256", "content": checksums[crate]}]
        if package["repository"]:
            component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        yield component, texts(pathlib.Path(package["manifest_path"]).parent, package)


def reference(package):
    """Its package URL. Crates of this workspace are in no registry."""
    kind = "cargo" if package["source"] else "generic"
    return f"pkg:{kind}/{package['name']}@{package['version']}"


def texts(folder, package):
    """The licences in the crate, and those of what it carries; or the standard ones, where it has none."""
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        found += [pathlib.Path(place, file) for file in sorted(files) if LICENCE_FILE.match(file)]
    if not package["source"]:
        found = [pathlib.Path("LICENSE")]
    if not found:
        names = re.findall(r"[A-Za-z0-9][A-Za-z0-9.+-]*", re.sub(r"\b(OR|AND|WITH)\b", " ", spdx(package["license"])))
        found = [rust() / "licenses" / f"{name}.txt" for name in names]
    return [path.read_text(errors="replace").strip() for path in found]


def rust():
    return pathlib.Path(output("rustc", "--print", "sysroot").strip(), "share/doc/rust")


def standard_library(root, release):
    """What every Rust program links; its notices are a page of their own."""
    place = root / RUST_COPYRIGHT
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes((rust() / place.name).read_bytes())
    purl = f"pkg:generic/rust-std@{release}"
    component = {
        "type": "library", "bom-ref": purl, "name": "rust-std", "version": release, "purl": purl,
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }  # fmt: skip
    return component, [f"See /{RUST_COPYRIGHT}."]


def debian(name):
    """A package that files of the image come from."""
    fields = "${Version}\t${Architecture}"
    version, architecture = output("dpkg-query", "--show", "--showformat", fields, name).split("\t")
    copyright_file = pathlib.Path("/usr/share/doc", name, "copyright")
    text = copyright_file.read_text(errors="replace")
    # Files in the machine-readable format name licences; others refer to their texts.
    named = set(re.findall(r"^License: *(\S.*)$", text, re.MULTILINE)) if text.startswith("Format:") else set()
    names = sorted(named or COMMON_LICENCE.findall(text))
    purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}"
    component = {
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        "licenses": [{"license": {"name": licence}} for licence in dict.fromkeys(names)],
    }  # fmt: skip
    return component, [f"See {copyright_file}, and the texts that it refers to."]


def licence_names(component):
    return " AND ".join(entry.get("expression") or entry["license"]["name"] for entry in component["licenses"])


def licence_list(title, parts):
    """A table of everything, then every text once."""
    numbers, rows = {}, []
    for component, found in parts:
        used = sorted({numbers.setdefault(text, len(numbers) + 1) for text in found})
        row = [component["name"], component["version"], licence_names(component), *map("[{}]".format, used)]
        rows.append("  ".join(row))
    sections = [f"[{number}]\n\n{text}" for text, number in numbers.items()]
    rule = "\n\n" + "-" * 80 + "\n\n"
    return rule.join([f"{title}\n\n" + "\n".join(rows), *sections]) + "\n"


def bill(root_component, parts, uses):
    """The CycloneDX document."""
    components = [component for component, _ in parts]
    by_crate = {(component["name"], component["version"]): component["bom-ref"] for component in components}
    ours = root_component["bom-ref"]
    by_crate[root_component["name"], root_component["version"]] = ours
    uses = {by_crate[crate]: {by_crate[other] for other in others} for crate, others in uses.items()}
    uses[ours] |= {ref for ref in by_crate.values() if not ref.startswith("pkg:cargo/")} - uses.keys()
    document = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": root_component},
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": sorted(uses.get(ref, ()))} for ref in sorted(by_crate.values())],
    }  # fmt: skip
    serial = uuid.uuid5(uuid.NAMESPACE_URL, sha256(json.dumps(document, sort_keys=True).encode()))
    return {"serialNumber": f"urn:uuid:{serial}"} | document


def main():
    program, root, *packages = sys.argv[1:]
    root = pathlib.Path(root)
    compiler = dict(line.split(": ", 1) for line in output("rustc", "-vV").splitlines() if ": " in line)
    uses = linked(program, compiler["host"])
    linked_parts = list(crates(uses, compiler["host"]))
    itself = next(component for component, _ in linked_parts if component["name"] == program)
    binary = (root / "usr/bin" / program).read_bytes()
    itself |= {"type": "application", "hashes": [{"alg": "SHA-256", "content": sha256(binary)}]}
    parts = [(component, found) for component, found in linked_parts if component is not itself]
    parts += [standard_library(root, compiler["release"]), *map(debian, packages)]

    folder = root / "usr/share/doc/llm-fleet"
    document = bill(itself, parts, uses)
    (folder / "sbom.cdx.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    title = f"What is in {program} {itself['version']} beside itself, and under which licences."
    (folder / "licenses.txt").write_text(licence_list(title, parts))


main()
