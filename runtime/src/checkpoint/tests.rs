use std::os::unix::fs::symlink;

use super::*;
use crate::fixture::{CONFIG, TENSORS, gguf_file, safetensors_file};

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

#[test]
fn a_gguf_is_found_as_a_file_and_in_a_folder() {
    let folder =
        folder(&[("model.gguf", &gguf_file("llama")), (".hidden.gguf", b"x"), ("README.md", b"hello")]);
    for path in [folder.path().join("model.gguf"), folder.path().to_owned()] {
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(
            (checkpoint.format, checkpoint.files.as_slice()),
            (Format::Gguf, &["model.gguf".into()][..])
        );
        assert_eq!(checkpoint.header.tensors.len(), TENSORS);
        assert_eq!(checkpoint.geometry.n_layers(), 1);
    }
}

#[test]
fn a_safetensors_folder_is_read_with_its_companions() {
    let weights = safetensors_file();
    let files: [(&str, &[u8]); 4] = [
        (CONFIG_FILE, CONFIG.as_bytes()),
        (SAFETENSORS_FILE, &weights),
        ("tokenizer_config.json", b"{\"a\":1}"),
        ("notes.txt", b""),
    ];
    let folder = folder(&files);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.files, [CONFIG_FILE, SAFETENSORS_FILE, "tokenizer_config.json"]);
    assert_eq!(checkpoint.companion_json("tokenizer_config.json").unwrap().unwrap()["a"], 1);
    assert!(checkpoint.companion_text("chat_template.jinja").unwrap().is_none());
}

#[test]
fn what_is_no_checkpoint_says_why() {
    let reason = |folder: &tempfile::TempDir, name: &str| {
        let error = Checkpoint::open(&folder.path().join(name)).unwrap_err();
        (error.reason(), crate::exit::chain(&error))
    };
    let good = gguf_file("llama");
    let wrong = folder(&[
        ("cut.gguf", &good[..good.len() - 40]),
        ("none.gguf", b"GGML"),
        ("empty.gguf", b""),
        ("other.gguf", &gguf_file("mamba")),
    ]);
    for (name, expected, text) in [
        ("cut.gguf", ExitReason::WeightsCorrupt, "truncated"),
        ("none.gguf", ExitReason::WeightsCorrupt, "not a GGUF file"),
        ("empty.gguf", ExitReason::WeightsCorrupt, "empty.gguf is not accepted"),
        ("other.gguf", ExitReason::ModelUnsupported, "architecture \"mamba\" is not supported"),
        ("absent.gguf", ExitReason::SourceUnavailable, "beside it there is cut.gguf, empty.gguf"),
        ("", ExitReason::WeightsCorrupt, "4 .gguf files and 0 .safetensors files without config.json"),
    ] {
        let (reason, message) = reason(&wrong, name);
        assert_eq!(reason, expected, "{name}: {message}");
        assert!(message.contains(text), "{name}: {message}");
    }
    symlink("/dev/zero", wrong.path().join("zero.gguf")).unwrap();
    assert!(reason(&wrong, "zero.gguf").1.contains("not a regular file"));
}

#[test]
fn every_cut_of_a_file_is_an_error_and_never_a_panic() {
    let good = gguf_file("llama");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for length in (0..good.len()).step_by(7) {
        fs::write(&path, &good[..length]).unwrap();
        assert!(Checkpoint::open(&path).is_err(), "{length} of {} bytes", good.len());
    }
}
