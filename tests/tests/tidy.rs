//! Rules that neither the compiler nor clippy can check: file length, purity of folders, leftovers, links.
//!
//! In: every file of the repository. Out: a list of complaints, which must be empty.
//! Each rule is a pure function of a path and a text, and is shown below to be able to fail.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file, tests included.
const LONGEST: usize = 600;
/// Endings of files that are read as text.
const TEXT: &[&str] = &[
    "rs",
    "go",
    "sh",
    "md",
    "toml",
    "yaml",
    "yml",
    "json",
    "txt",
    "tpl",
    "svg",
    "Containerfile",
    "Makefile",
    "run",
];
/// Endings of files that are programs, and so have a longest length.
const PROGRAMS: &[&str] = &["rs", "go", "sh", "tpl", "Makefile", "run"];
/// What is left behind when a thing is not finished. Written in pieces, for this file is checked too.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimplemented", "!("),
    concat!("#[ign", "ore"),
];
/// Folders that exist on one machine only.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("/tmp/", "wt"),
    concat!("/tmp/", "target"),
];

/// Names that the code in some folders must not use; tests and comments may.
struct Purity {
    /// Prefixes of paths that the rule is for.
    within: &'static [&'static str],
    /// Prefixes of paths among them that it is not for.
    except: &'static [&'static str],
    /// Names, each a whole word or the start of a path.
    names: &'static [&'static str],
}

const CLOCKS: &[&str] = &["SystemTime", "Instant", "::now"];
const SHELL: &[&str] = &[
    "Client",
    "Api",
    "async",
    "await",
    "tokio",
    "reqwest",
    "prometheus",
    "rand",
    "std::fs",
    "SystemTime",
    "Instant",
    "::now",
];

/// What decides which step comes next.
const PLANNING: &[&str] = &[
    "runtime/src/engine/scheduler",
    "runtime/src/engine/block_pool",
    "runtime/src/engine/prefix",
    "runtime/src/engine/sequence",
    "runtime/src/engine/tenants",
    "runtime/src/engine/rate",
];

/// Who must not know what; ARCHITECTURE.md says why.
const PURITY: &[Purity] = &[
    Purity {
        within: &["contract/src/"],
        except: &[],
        names: &["kube", "k8s_openapi", "tokio", "candle_core", "std::fs", "std::net", "std::env", "async"],
    },
    Purity { within: &["contract/src/"], except: &[], names: CLOCKS },
    Purity { within: &["operator/src/fleet", "operator/src/api"], except: &[], names: SHELL },
    Purity {
        within: &["operator/src/deployment/", "operator/src/model/"],
        except: &[
            "operator/src/deployment/controller",
            "operator/src/deployment/observe",
            "operator/src/model/controller",
            "operator/src/model/observe",
        ],
        names: SHELL,
    },
    Purity {
        within: &["operator/src/apply"],
        except: &[],
        // Who asks for an object, and to what end.
        names: &[
            "crate::deployment",
            "crate::model",
            "crate::fleet",
            "crate::placement",
            "crate::controller",
        ],
    },
    Purity {
        within: &["runtime/src/bench/"],
        except: &["runtime/src/bench/client", "runtime/src/bench/tests"],
        names: SHELL,
    },
    Purity {
        within: &["runtime/src/http"],
        except: &[],
        names: &["candle_core", "kernels", "Tensor", "crate::model", "scheduler", "block_pool"],
    },
    Purity {
        within: PLANNING,
        except: &[],
        names: &[
            "candle_core",
            "kernels",
            "Tensor",
            "tokenizers",
            "tokio",
            "mpsc",
            "axum",
            "crate::http",
            // Of the model they know the plan of a step, which is integers.
            "crate::model::cache",
            "crate::model::family",
            "crate::model::part",
            "Cache",
            "Model",
        ],
    },
    Purity { within: PLANNING, except: &[], names: CLOCKS },
    Purity {
        within: &["runtime/src/model"],
        except: &[],
        names: &[
            "tokenizers",
            "minijinja",
            "axum",
            "tokio",
            "crate::http",
            "crate::request",
            "crate::tokens",
            "crate::engine",
        ],
    },
];

/// Rust code without comments and without what stands in strings; lines stay lines.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut at) = (String::new(), 0);
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
        let end = if starts(at, "//") {
            until(&chars, at, |rest| rest[0] == '\n')
        } else if starts(at, "/*") {
            until(&chars, at + 2, |rest| rest.starts_with(&['*', '/'])) + 2
        } else if chars[at] == 'r' && !word_before && chars.get(at + 1 + hashes) == Some(&'"') {
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            until(&chars, at + 2 + hashes, |rest| rest.starts_with(&close)) + close.len()
        } else if chars[at] == '"' {
            let mut end = at + 1;
            while end < chars.len() && chars[end] != '"' {
                end += if chars[end] == '\\' { 2 } else { 1 };
            }
            end + 1
        } else if chars[at] == '\'' && chars.get(at + 1) == Some(&'\\') {
            until(&chars, at + 3, |rest| rest[0] == '\'') + 1
        } else if chars[at] == '\'' && chars.get(at + 2) == Some(&'\'') {
            at + 3
        } else {
            code.push(chars[at]);
            at += 1;
            continue;
        };
        let end = end.min(chars.len());
        code.extend(chars[at..end].iter().filter(|c| **c == '\n'));
        at = end;
    }
    code
}

fn until(chars: &[char], from: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    (from.min(chars.len())..chars.len()).find(|at| stop(&chars[*at..])).unwrap_or(chars.len())
}

/// The part of a source file that is no test.
fn without_tests<'a>(path: &str, code: &'a str) -> &'a str {
    let only_tests = path.ends_with("/tests.rs") || path.contains("/tests/");
    if only_tests { "" } else { code.split("#[cfg(test)]").next().unwrap_or(code) }
}

/// Whether `name` stands in `code` as a whole word, or as the whole start of a path.
fn mentions(code: &str, name: &str) -> bool {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        (name.starts_with(':') || !part_of_word(before)) && !part_of_word(after)
    })
}

fn impure(path: &str, text: &str) -> Vec<String> {
    if !path.ends_with(".rs") {
        return Vec::new();
    }
    let code = code_only(text);
    let code = without_tests(path, &code);
    let applies = |rule: &&Purity| {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        starts(rule.within) && !starts(rule.except)
    };
    PURITY
        .iter()
        .filter(applies)
        .flat_map(|rule| rule.names)
        .filter(|name| mentions(code, name))
        .map(|name| format!("{path}: must not know `{name}`"))
        .collect()
}

fn too_long(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let long = PROGRAMS.contains(&ending(path)) && lines > LONGEST;
    long.then(|| format!("{path}: {lines} lines; split it, {LONGEST} are the most")).into_iter().collect()
}

fn left_over(path: &str, text: &str) -> Vec<String> {
    let found = |words: &'static [&str], what: &str| {
        let what = format!("{path}: {what}");
        words.iter().filter(|word| text.contains(**word)).map(move |word| format!("{what} `{word}`"))
    };
    found(LEFTOVERS, "is not finished:").chain(found(MACHINE_PATHS, "names a path of one machine:")).collect()
}

/// Relative links of a Markdown file whose target is not among the files or their folders.
fn broken_links(path: &str, text: &str, files: &BTreeMap<String, String>) -> Vec<String> {
    if ending(path) != "md" {
        return Vec::new();
    }
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .map(|target| (target, resolve(&folder.join(target))))
        .filter(|(_, full)| !files.keys().any(|file| Path::new(file).starts_with(full)))
        .map(|(target, _)| format!("{path}: {target} does not exist"))
        .collect()
}

/// A path without `.` and `..`.
fn resolve(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut full, part| {
        match part {
            std::path::Component::ParentDir => drop(full.pop()),
            std::path::Component::CurDir => {}
            part => full.push(part),
        }
        full
    })
}

fn unlinked_decisions(files: &BTreeMap<String, String>) -> Vec<String> {
    let map = files.get("ARCHITECTURE.md").map_or("", String::as_str);
    files
        .keys()
        .filter(|path| path.starts_with("docs/adr/") && !map.contains(&format!("({path}")))
        .map(|path| format!("ARCHITECTURE.md: does not link {path}"))
        .collect()
}

fn ending(path: &str) -> &str {
    path.rsplit(['.', '/']).next().unwrap_or(path)
}

fn complaints(files: &BTreeMap<String, String>) -> Vec<String> {
    let of_file = |(path, text): (&String, &String)| {
        [too_long(path, text), impure(path, text), left_over(path, text), broken_links(path, text, files)]
            .concat()
    };
    files.iter().flat_map(of_file).chain(unlinked_decisions(files)).collect()
}

/// Every file that git tracks or would track, by its path; the text of those that have one, empty for others.
fn repository() -> BTreeMap<String, String> {
    let root = e2e::paths::repository();
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = e2e::process::output(Command::new("git").current_dir(&root).args(list)).unwrap();
    let text = |path: &str| {
        if TEXT.contains(&ending(path)) {
            fs::read_to_string(root.join(path)).unwrap()
        } else {
            String::new()
        }
    };
    // What is deleted and not committed yet is still listed.
    let there = listed.split_terminator('\0').filter(|path| root.join(path).exists());
    there.map(|path| (path.to_owned(), text(path))).collect()
}

#[test]
fn the_repository_is_tidy() {
    let files = repository();
    assert!(files.len() > 50, "only {} files were found", files.len());
    let complaints = complaints(&files);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn the_repository_has_what_a_reader_looks_for() {
    let files = repository();
    for path in ["LICENSE", "README.md", "ARCHITECTURE.md", "Makefile", "deny.toml", ".ci/run"] {
        assert!(files.contains_key(path), "{path} is missing");
    }
}

#[test]
fn every_purity_rule_is_about_files_that_exist() {
    let files = repository();
    for prefix in PURITY.iter().flat_map(|rule| rule.within.iter().chain(rule.except)) {
        assert!(files.keys().any(|path| path.starts_with(prefix)), "no file begins with {prefix}");
    }
}

#[test]
fn comments_and_strings_are_no_code() {
    let text =
        "a // kube\n/* kube\n */ b \"kube \\\" kube\" r#\"kube \" kube\"# 'k' '\\n' fn f<'a>(x: &'a str)";
    let code = code_only(text);
    assert!(!code.contains("kube"), "{code}");
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(code.contains("fn f<'a>(x: &'a str)"), "{code}");
}

#[test]
fn an_impure_name_is_found() {
    let found = |path: &str, text: &str| impure(path, text).len();
    assert_eq!(found("contract/src/memory.rs", "use std::fs;"), 1);
    assert_eq!(found("contract/src/memory.rs", "let now = Instant::now();"), 2);
    assert_eq!(found("operator/src/fleet/place.rs", "pub async fn place() {}"), 1);
    assert_eq!(found("operator/src/deployment/build/pod.rs", "use kube::{Api, Client};"), 2);
    assert_eq!(found("operator/src/apply.rs", "use crate::deployment::plan::Plan;"), 1);
    assert_eq!(found("runtime/src/engine/block_pool.rs", "use candle_core::Tensor;"), 2);
    assert_eq!(found("runtime/src/http/openai.rs", "use candle_core::Device;"), 1);
    assert_eq!(found("runtime/src/model/family/llama.rs", "use crate::engine::sampler;"), 1);
}

#[test]
fn a_pure_or_exempt_file_is_left_alone() {
    let found = |path: &str, text: &str| impure(path, text).len();
    assert_eq!(found("operator/src/deployment/observe.rs", "pub async fn observe(client: &Client) {}"), 0);
    assert_eq!(found("operator/src/fleet/place.rs", "pub fn place(now: Timestamp, clients: u8) {}"), 0);
    assert_eq!(found("contract/src/memory.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use std::fs; }"), 0);
    assert_eq!(found("contract/src/memory/tests.rs", "use std::fs;"), 0);
    assert_eq!(found("contract/src/memory.rs", "// tokio is for others"), 0);
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(too_long("a/b.rs", &"x\n".repeat(LONGEST)).len(), 0);
    assert_eq!(too_long("a/b.rs", &"x\n".repeat(LONGEST + 1)).len(), 1);
    assert_eq!(too_long("crds/a.yaml", &"x\n".repeat(LONGEST + 1)).len(), 0);
}

#[test]
fn a_leftover_or_a_machine_path_is_found() {
    for word in LEFTOVERS.iter().chain(MACHINE_PATHS) {
        assert_eq!(left_over("a.rs", &format!("x {word} y")).len(), 1, "{word}");
    }
    assert_eq!(left_over("a.rs", "emptyDir at /tmp").len(), 0);
}

#[test]
fn a_broken_link_and_an_unlinked_decision_are_found() {
    let text = "[a](docs/a.md) [b](docs/adr/0001-b.md#why) [c](https://x.example/c) [d](docs)";
    let mut files = BTreeMap::from([
        ("ARCHITECTURE.md".to_owned(), text.to_owned()),
        ("docs/adr/0001-b.md".to_owned(), "[up](../../ARCHITECTURE.md)".to_owned()),
    ]);
    assert_eq!(complaints(&files), ["ARCHITECTURE.md: docs/a.md does not exist"]);
    files.insert("docs/a.md".to_owned(), String::new());
    files.insert("docs/adr/0002-c.md".to_owned(), String::new());
    assert_eq!(complaints(&files), ["ARCHITECTURE.md: does not link docs/adr/0002-c.md"]);
}
