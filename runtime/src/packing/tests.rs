use std::fs;
use std::path::{Path, PathBuf};

use contract::{Bytes, DType};
use kernels::{Isa, Kernels};

use super::*;
use crate::fixture::{TENSORS, gguf_file};
use crate::weights::Loader;
use crate::weights::packed::PackedBytes;

const NAME: &str = "token_embd.weight";

/// A checkpoint whose numbers differ, in a folder of its own.
fn checkpoint() -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = gguf_file("llama");
    let start = file.len() - TENSORS * 512;
    for (index, number) in file[start..].chunks_exact_mut(4).enumerate() {
        number.copy_from_slice(&(index as f32).to_le_bytes());
    }
    fs::write(folder.path().join("model.gguf"), file).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

fn path(checkpoint: &Checkpoint) -> PathBuf {
    packed::path_of(&checkpoint.weights)
}

fn loaded(checkpoint: &Checkpoint) -> PackedBytes {
    let tensors =
        Tensors::map(&checkpoint.weights, &checkpoint.header).unwrap().with_packed(find(checkpoint));
    let kernels = Kernels::new(Isa::detect(), 2);
    let mut progress = |_| {};
    let mut loader = Loader::new(&tensors, Some(&kernels), DeviceClass::Cpu, &mut progress);
    loader.matrix(NAME, 4, 32).unwrap().bytes
}

fn is_mapped(bytes: &PackedBytes) -> bool {
    matches!(bytes, PackedBytes::Mapped(..))
}

fn names(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn what_is_mapped_is_what_would_be_packed() {
    let (folder, checkpoint) = checkpoint();
    let owned = loaded(&checkpoint);
    assert!(!is_mapped(&owned));
    assert!(keep(&checkpoint).unwrap(), "it was missing");
    assert!(!keep(&checkpoint).unwrap(), "it is kept");
    let mapped = loaded(&checkpoint);
    assert!(is_mapped(&mapped) && *mapped == *owned && owned.iter().any(|byte| *byte != 0));
    assert_eq!(names(folder.path()), 2, "nothing else is left");
    assert_eq!(Checkpoint::open(folder.path()).unwrap().files, ["model.gguf"], "it is no part of the model");
}

#[test]
fn what_is_not_of_these_weights_is_not_used() {
    let (_folder, checkpoint) = checkpoint();
    keep(&checkpoint).unwrap();
    let whole = fs::read(path(&checkpoint)).unwrap();
    let packed = find(&checkpoint).unwrap();
    assert!(packed.get(NAME, DType::F16, Bytes(2048)).is_none(), "another type");
    assert!(packed.get(NAME, DType::F32, Bytes(512)).is_none(), "another size");
    assert!(packed.get("other", DType::F32, Bytes(2048)).is_none());

    let mut damaged = whole.clone();
    // The other matrix comes first: four rows, padded to a tile.
    damaged[64 + 2048] ^= 1;
    fs::write(path(&checkpoint), damaged).unwrap();
    assert!(!is_mapped(&loaded(&checkpoint)), "a damaged matrix is packed anew");

    for length in [0, 7, 8, 100, whole.len() - 9, whole.len() - 1] {
        fs::write(path(&checkpoint), &whole[..length]).unwrap();
        assert!(find(&checkpoint).is_none(), "{length} of {} bytes", whole.len());
    }
    let length = whole.len() - 16;
    for claimed in [u64::MAX, whole.len() as u64, 1, 0] {
        let mut wrong = whole.clone();
        wrong[length..length + 8].copy_from_slice(&claimed.to_le_bytes());
        fs::write(path(&checkpoint), wrong).unwrap();
        assert!(find(&checkpoint).is_none(), "an index of {claimed} bytes");
    }

    fs::write(path(&checkpoint), &whole).unwrap();
    assert!(find(&checkpoint).is_some());
    let time = fs::metadata(&checkpoint.weights).unwrap().modified().unwrap();
    let mut other = fs::read(&checkpoint.weights).unwrap();
    let start = other.len() - TENSORS * 512;
    other[start] ^= 1;
    fs::write(&checkpoint.weights, other).unwrap();
    fs::File::options().write(true).open(&checkpoint.weights).unwrap().set_modified(time).unwrap();
    assert!(find(&checkpoint).is_none(), "weights of the same size and time are others");
    assert!(keep(&checkpoint).unwrap(), "so it is made anew");
    assert!(find(&checkpoint).is_some());

    fs::remove_file(path(&checkpoint)).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(path(&checkpoint)).status().unwrap();
    assert!(pipe.success() && find(&checkpoint).is_none(), "a pipe is nothing");
}

#[test]
fn what_a_killed_run_left_is_written_over_and_what_another_writes_is_left_alone() {
    let (_folder, checkpoint) = checkpoint();
    let aside = checkpoint.root.join(".model.gguf.llmfleet-packing");
    fs::write(&aside, vec![7; 1 << 16]).unwrap();
    let other = fs::File::open(&aside).unwrap();
    other.lock().unwrap();
    assert!(matches!(keep(&checkpoint), Err(PackedError::Busy(_))));
    assert_eq!(fs::metadata(&aside).unwrap().len(), 1 << 16);
    drop(other);
    assert!(keep(&checkpoint).unwrap() && !aside.exists());
    assert!(is_mapped(&loaded(&checkpoint)));
}
