//! The images: the same from the same programs wherever and whenever they are built, and what is in them is written
//! down, with its licences.
//!
//! `make reproducible` shows the same of the programs, which takes minutes.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::install::archives;
use e2e::paths::repository;
use e2e::process::output;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Where both documents are in an image.
const DOCUMENTS: &str = "usr/share/doc/llm-fleet";
/// What the folder of downloaded crates is called in programs.
const REGISTRY: &str = "/cargo/registry/src/";
/// What only builds or tests the programs.
const NOT_LINKED: [&str; 5] = ["cc", "proptest", "serde_derive", "syn", "tokio-macros"];

/// The programs that images are made for.
fn names() -> Vec<&'static str> {
    archives().unwrap().into_iter().map(|archive| archive.name).collect()
}

fn built(file: &str) -> PathBuf {
    repository().join("target/images").join(file)
}

/// Content of the staged root, which is all that the image holds.
fn root(name: &str) -> PathBuf {
    built(&format!("root-{name}"))
}

fn program(name: &str) -> PathBuf {
    root(name).join(format!("usr/bin/llm-fleet-{name}"))
}

fn sha256(file: &Path) -> String {
    hex::encode(Sha256::digest(fs::read(file).unwrap()))
}

fn bill(name: &str) -> Value {
    serde_json::from_slice(&fs::read(built(&format!("{name}.sbom.json"))).unwrap()).unwrap()
}

fn components(bill: &Value) -> &[Value] {
    bill["components"].as_array().unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

/// Name and version of the crates from a registry.
fn crates(bill: &Value) -> BTreeSet<(String, String)> {
    let from_registry = components(bill).iter().filter(|c| text(c, "purl").starts_with("pkg:cargo/"));
    from_registry.map(|c| (text(c, "name").to_owned(), text(c, "version").to_owned())).collect()
}

#[test]
fn an_image_is_the_same_wherever_and_whenever_it_is_built() {
    for name in names() {
        let elsewhere = tempfile::Builder::new().prefix("an other place ").tempdir().unwrap();
        let copy = elsewhere.path().join("program");
        fs::copy(program(name), &copy).unwrap();
        let script = repository().join("deploy/image.sh");
        output(Command::new(script).arg(name).arg(&copy).arg(elsewhere.path())).unwrap();
        for file in ["tar", "sbom.json", "licenses.txt"].map(|extension| format!("{name}.{extension}")) {
            let (first, second) = (sha256(&built(&file)), sha256(&elsewhere.path().join(&file)));
            println!("{file}: {first}");
            assert_eq!(first, second, "{file}: is target/images of these sources (`make images`)?");
        }
    }
}

#[test]
fn programs_name_no_folder_of_this_machine() {
    let home = std::env::var("HOME").unwrap();
    for name in names() {
        let program = fs::read(program(name)).unwrap();
        let holds = |text: &str| program.windows(text.len()).any(|window| window == text.as_bytes());
        for folder in [format!("{home}/"), repository().display().to_string()] {
            assert!(!holds(&folder), "{name} names {folder}");
        }
        assert!(holds(REGISTRY), "{name} is not built by deploy/images.sh");
    }
}

/// The crates whose sources a program names, in what it would say if it panicked.
fn named_in(program: &Path) -> BTreeSet<String> {
    let content = fs::read(program).unwrap();
    let mut named = BTreeSet::new();
    let mut rest = &content[..];
    while let Some(at) = rest.windows(REGISTRY.len()).position(|window| window == REGISTRY.as_bytes()) {
        rest = &rest[at + REGISTRY.len()..];
        let mut path = rest.split(|byte| *byte == b'/');
        let (_registry, folder) = (path.next(), path.next());
        named.extend(folder.map(|folder| String::from_utf8(folder.to_vec()).unwrap()));
    }
    named
}

#[test]
fn every_crate_of_a_program_is_listed_and_no_other() {
    for name in names() {
        let listed = crates(&bill(name));
        let tree = output(Command::new(env!("CARGO")).current_dir(repository()).args([
            "tree",
            "--locked",
            "--edges=normal,no-proc-macro",
            "--prefix=none",
            "--no-dedupe",
            &format!("--package=llm-fleet-{name}"),
        ]));
        let of_tree: BTreeSet<_> = tree
            .unwrap()
            .lines()
            .filter(|line| !line.contains("(/"))
            .filter_map(|line| line.split_once(" v"))
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .collect();
        let missing: Vec<_> = of_tree.difference(&listed).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
        for other in NOT_LINKED {
            assert!(!listed.iter().any(|(listed, _)| listed == other), "{name}: {other}");
        }
        // Both are built together: what only the other asks of a shared crate is in this one too, and little else.
        let more: Vec<_> = listed.difference(&of_tree).collect();
        println!("{name}: {} crates, of which {more:?} by features of the other", listed.len());
        assert!(more.len() < 10, "{name}: {more:?}");

        let folders: BTreeSet<_> = listed.iter().map(|(name, version)| format!("{name}-{version}")).collect();
        let named = named_in(&program(name));
        assert!(named.len() > 50, "{name}: {named:?}");
        let unlisted: Vec<_> = named.difference(&folders).collect();
        assert!(unlisted.is_empty(), "{name} holds {unlisted:?}");
    }
}

#[test]
fn a_bill_is_whole_and_says_what_each_part_is() {
    for name in names() {
        let bill = bill(name);
        assert_eq!((text(&bill, "bomFormat"), text(&bill, "specVersion")), ("CycloneDX", "1.5"));
        assert!(text(&bill, "serialNumber").starts_with("urn:uuid:"));
        let itself = &bill["metadata"]["component"];
        assert_eq!(text(itself, "name"), format!("llm-fleet-{name}"));
        assert_eq!(text(&itself["hashes"][0], "content"), sha256(&program(name)));
        let mut references = BTreeSet::from([text(itself, "bom-ref")]);
        for component in components(&bill) {
            assert!(!text(component, "name").is_empty() && !text(component, "version").is_empty());
            assert!(text(component, "purl").starts_with("pkg:"), "{component}");
            let licences = component["licenses"].as_array().unwrap();
            let named = |licence: &Value| {
                let name = licence["expression"].as_str().or(licence["license"]["name"].as_str());
                name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
            };
            assert!(!licences.is_empty() && licences.iter().all(named), "{component}");
            let from_registry = text(component, "purl").starts_with("pkg:cargo/");
            assert!(!from_registry || text(&component["hashes"][0], "content").len() == 64, "{component}");
            assert!(references.insert(text(component, "bom-ref")), "twice: {component}");
        }
        assert_eq!(reachable(&bill, text(itself, "bom-ref")), references);
    }
}

/// What a component depends on, directly or not, with itself.
fn reachable<'a>(bill: &'a Value, from: &'a str) -> BTreeSet<&'a str> {
    let edges: BTreeMap<&str, &Vec<Value>> = bill["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(entry, "ref"), entry["dependsOn"].as_array().unwrap()))
        .collect();
    let (mut found, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(reference) = next.pop() {
        if found.insert(reference) {
            next.extend(edges[reference].iter().map(|other| other.as_str().unwrap()));
        }
    }
    found
}

#[test]
fn every_library_is_of_a_package_that_is_listed_with_its_licence() {
    for name in names() {
        let bill = bill(name);
        let packages: Vec<_> =
            components(&bill).iter().filter(|c| text(c, "purl").starts_with("pkg:deb/")).collect();
        for needed in ["libc6", "libgcc-s1", "ca-certificates"] {
            assert!(packages.iter().any(|package| text(package, "name") == needed), "{name}: {packages:?}");
        }
        for package in packages {
            let (package, version) = (text(package, "name"), text(package, "version"));
            let installed = output(Command::new("dpkg-query").args(["--show", "-f=${Version}", package]));
            assert_eq!(version, installed.unwrap());
            let licence = root(name).join("usr/share/doc").join(package).join("copyright");
            assert!(licence.metadata().unwrap().len() > 0, "{licence:?}");
        }
    }
}

#[test]
fn licences_and_bill_travel_with_the_program() {
    for name in names() {
        let archive = built(&format!("{name}.tar"));
        let layers = output(Command::new("tar").args(["--list", "--file"]).arg(&archive)).unwrap();
        let layer = layers.lines().find(|file| file.ends_with(".tar")).unwrap();
        let mut unpack = Command::new("sh");
        unpack.args(["-c", "tar xOf \"$0\" \"$1\" | tar xO \"$2\""]).arg(&archive).arg(layer);
        let list = output(unpack.arg(format!("{DOCUMENTS}/licenses.txt"))).unwrap();
        assert_eq!(list, fs::read_to_string(built(&format!("{name}.licenses.txt"))).unwrap());

        let rule = format!("\n\n{}\n\n", "-".repeat(80));
        let (table, _) = list.split_once(&rule).unwrap();
        let rows: Vec<Vec<_>> = table.lines().skip(2).map(|row| row.split("  ").collect()).collect();
        let has_text = |number: &&str| {
            list.split_once(&format!("{rule}{number}\n\n")).is_some_and(|(_, text)| !text.trim().is_empty())
        };
        let bill = bill(name);
        assert_eq!(rows.len(), components(&bill).len());
        for component in components(&bill) {
            let of_component =
                |row: &&Vec<_>| row.starts_with(&[text(component, "name"), text(component, "version")]);
            let row = rows.iter().find(of_component).unwrap();
            assert!(row.len() > 3 && row[3..].iter().all(has_text), "{row:?}");
        }
    }
}
