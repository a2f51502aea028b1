use contract::device::DeviceClass;
use contract::dtype::KvDType;
use contract::memory::Capacity;

use super::*;
use crate::fixture::gguf_file;

const CAPACITY: Capacity = Capacity { context_length: 128, concurrency: 2, kv_dtype: KvDType::F32 };

#[test]
fn a_checkpoint_is_described_the_same_way_hashed_or_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let content = gguf_file("llama");
    std::fs::write(folder.path().join("model.gguf"), &content).unwrap();
    let inspection = inspect(&Checkpoint::open(folder.path()).unwrap()).unwrap();
    let sha256 = hex::encode(Sha256::digest(&content));
    let file = ManifestFile { path: "model.gguf".into(), bytes: Bytes(content.len() as u64), sha256 };
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(inspect_fetched(&checkpoint, &Manifest::new(vec![file])).unwrap(), inspection);
    assert_eq!((inspection.parameters, inspection.license.as_deref()), (256, Some("apache-2.0")));
    let line = inspection.to_line().unwrap();
    assert_eq!(Inspection::from_log(&line).unwrap().unwrap(), inspection);
}

#[test]
fn the_table_shows_tensors_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), gguf_file("llama")).unwrap();
    let inspection = inspect(&Checkpoint::open(folder.path()).unwrap()).unwrap();
    let text = table(&inspection, CAPACITY, DeviceClass::Cpu);
    for expected in ["llama: 1 layers", "Embedding", "4 × 32", "kv_cache", "total"] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let longer = Capacity { context_length: 129, ..CAPACITY };
    assert!(table(&inspection, longer, DeviceClass::Cpu).contains("longer than the model's own 128"));
}
