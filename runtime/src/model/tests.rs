use std::sync::Arc;

use contract::device::DeviceClass;
use contract::geometry::Family;
use contract::header::TensorInfo;
use contract::header::gguf::Value;
use contract::tensors::{group, resident_bytes};
use contract::{DType, KvDType};
use kernels::{Isa, Kernels};
use serde_json::json;

use super::*;
use crate::selftest::tiny::{CACHE_BLOCKS, Tiny, VOCABULARY};
use crate::weights::{LoadError, Tensors};

/// The tiny model with a cache, run step by step.
struct Machine {
    model: Box<dyn Model>,
    cache: Cache,
}

impl Machine {
    fn new(kernels: &Arc<Kernels>, kv_dtype: KvDType) -> Self {
        Self::of(Family::Llama, kernels, kv_dtype)
    }

    fn of(family: Family, kernels: &Arc<Kernels>, kv_dtype: KvDType) -> Self {
        let model = Tiny::of(family).load(kernels).unwrap().model;
        let cache = Cache::new(model.cache_spec(), kv_dtype, CACHE_BLOCKS).unwrap();
        Self { model, cache }
    }

    fn step(&mut self, parts: &[Part<'_>]) -> Vec<Vec<f32>> {
        let logits = self.model.forward(&StepInput::of(parts).unwrap(), &mut self.cache).unwrap();
        with_floats(&logits, |all| all.chunks(VOCABULARY).map(<[f32]>::to_vec).collect()).unwrap()
    }
}

fn kernels() -> Arc<Kernels> {
    Arc::new(Kernels::new(Isa::detect(), 2))
}

fn part<'a>(tokens: &'a [u32], first_position: u32, table: &'a [u32]) -> Part<'a> {
    Part { tokens, first_position, table, wants_logits: true }
}

#[test]
fn three_sequences_at_once_are_three_alone() {
    let tiny = Tiny::new();
    let texts = [tiny.tokens(5), tiny.tokens(70), tiny.tokens(32)];
    let tables: [&[u32]; 3] = [&[6], &[0, 5, 2], &[7]];
    let caches = [KvDType::F32, KvDType::F16];
    for (family, kv_dtype) in Family::ALL.into_iter().flat_map(|family| caches.map(|dtype| (family, dtype))) {
        let parts: Vec<Part<'_>> =
            texts.iter().zip(tables).map(|(text, table)| part(text, 0, table)).collect();
        let machine = || Machine::of(family, &kernels(), kv_dtype);
        let together = machine().step(&parts);
        for (part, row) in parts.iter().zip(&together) {
            let other_blocks = part.table.iter().map(|block| (block + 3) % CACHE_BLOCKS as u32);
            let table: Vec<u32> = other_blocks.collect();
            let alone = machine().step(&[Part { table: &table, ..*part }]);
            assert_eq!(&alone[0], row, "{family:?}, {kv_dtype:?}, {} tokens", part.tokens.len());
        }
    }
}

#[test]
fn a_sequence_may_be_cut_anywhere() {
    let text = Tiny::new().tokens(70);
    let table = [3, 0, 6];
    let whole = Machine::new(&kernels(), KvDType::F32).step(&[part(&text, 0, &table)]).remove(0);
    for cuts in [vec![31, 70], vec![32, 64, 70], vec![1, 33, 69, 70], (1..=70).collect()] {
        let mut machine = Machine::new(&kernels(), KvDType::F32);
        let mut last = Vec::new();
        let mut start = 0;
        for end in cuts {
            last = machine.step(&[part(&text[start..end], start as u32, &table)]).remove(0);
            start = end;
        }
        assert_eq!(last, whole);
    }
}

#[test]
fn kernel_sets_and_threads_give_the_same_bits() {
    let text = Tiny::new().tokens(40);
    let expected = Machine::new(&Arc::new(Kernels::new(Isa::scalar(), 1)), KvDType::F32);
    let expected = { expected }.step(&[part(&text, 0, &[1, 2])]);
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut machine = Machine::new(&Arc::new(Kernels::new(isa, threads)), KvDType::F32);
            assert_eq!(machine.step(&[part(&text, 0, &[1, 2])]), expected, "{}", isa.name());
        }
    }
}

#[test]
fn steps_without_logits_or_tokens_run() {
    let text = Tiny::new().tokens(10);
    let mut machine = Machine::new(&kernels(), KvDType::F32);
    assert!(machine.step(&[Part { wants_logits: false, ..part(&text, 0, &[0]) }]).is_empty());
    assert!(machine.step(&[]).is_empty());
}

#[test]
fn steps_that_contradict_themselves_are_refused() {
    let text = Tiny::new().tokens(40);
    let good = StepInput::of(&[part(&text, 0, &[0, 1])]).unwrap();
    let mut machine = Machine::new(&kernels(), KvDType::F32);
    let mut refusal = |change: &dyn Fn(&mut StepInput)| {
        let mut step = good.clone();
        change(&mut step);
        match machine.model.forward(&step, &mut machine.cache) {
            Err(ForwardError::Step(error)) => error,
            other => panic!("not refused: {other:?}"),
        }
    };
    assert!(matches!(refusal(&|s| s.tokens[3] = 50), StepError::Index { what: "token", .. }));
    assert!(matches!(refusal(&|s| s.positions[3] = 128), StepError::Index { what: "position", .. }));
    assert!(matches!(refusal(&|s| s.positions[3] = 64), StepError::ShortTable(0)));
    assert!(matches!(refusal(&|s| s.groups[0].blocks[1] = 8), StepError::Index { what: "block", .. }));
    assert!(matches!(refusal(&|s| s.groups[0].slots[1] = 256), StepError::Index { what: "slot", .. }));
    assert!(matches!(refusal(&|s| s.logits_at[0] = 40), StepError::Index { what: "logits_at", .. }));
    assert!(matches!(refusal(&|s| s.adapter[0] = 1), StepError::Index { what: "adapter", .. }));
    assert!(matches!(refusal(&|s| s.seq_starts[1] = 39), StepError::Starts("seq_starts")));
    assert!(matches!(refusal(&|s| s.groups[0].block_starts[0] = 1), StepError::Starts("block_starts")));
    assert!(matches!(refusal(&|s| s.positions.truncate(39)), StepError::Length { .. }));
    assert!(matches!(refusal(&|s| s.groups.clear()), StepError::Length { .. }));
    assert!(matches!(refusal(&|s| s.logits_at = vec![0; 9]), StepError::TooMany { .. }));
    assert!(matches!(StepInput::of(&[part(&text, 0, &[0])]), Err(StepError::ShortTable(0))));
}

/// Both kinds of checkpoint rotate the halves of Qwen3's heads, so that only names and settings differ.
#[test]
fn a_config_gives_the_model_that_metadata_give() {
    let names = [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("blk", "model.layers"),
        ("attn_norm", "input_layernorm"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];
    let mut tiny = Tiny::of(Family::Qwen3);
    for tensor in &mut tiny.header.tensors {
        let parts = tensor.name.split('.').map(|part| {
            names.iter().find(|(gguf, _)| *gguf == part).map_or(part, |(_, hugging_face)| *hugging_face)
        });
        tensor.name = parts.collect::<Vec<_>>().join(".");
    }
    let config = json!({"rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
        "hidden_act": "silu", "use_sliding_window": false, "rope_scaling": null});
    let tensors = Tensors::in_memory(tiny.bytes.clone(), &tiny.header).unwrap();
    let request = LoadRequest {
        geometry: &tiny.geometry,
        description: Description::Config(&config),
        tensors: &tensors,
        device: DeviceClass::Cpu,
        step_tokens: 40,
        logit_rows: 1,
    };
    let loaded = load(&request, kernels(), &mut |_| ()).unwrap();
    assert_eq!(loaded.weights, resident_bytes(&group(&tiny.header.tensors), DeviceClass::Cpu).unwrap());
    let cache = Cache::new(loaded.model.cache_spec(), KvDType::F32, CACHE_BLOCKS).unwrap();
    let mut machine = Machine { model: loaded.model, cache };
    let text = tiny.tokens(40);
    let step = [part(&text, 0, &[0, 1])];
    assert_eq!(machine.step(&step), Machine::of(Family::Qwen3, &kernels(), KvDType::F32).step(&step));
}

/// Llama 3.1's GGUF files have them. They are planned like all weights, or the model would be past its plan.
#[test]
fn rope_factors_are_planned_and_used() {
    let with_factors = |factor: f32| {
        let mut tiny = Tiny::new();
        let start = tiny.bytes.len() as u64;
        let n_factors = tiny.geometry.layers[0].head_dim / 2;
        tiny.bytes.extend((0..n_factors).flat_map(|_| factor.to_le_bytes()));
        let (name, shape) = ("rope_freqs.weight".to_owned(), vec![n_factors.into()]);
        let range = start..tiny.bytes.len() as u64;
        tiny.header.tensors.push(TensorInfo { name, dtype: DType::F32, shape, range });
        tiny
    };
    let text = Tiny::new().tokens(40);
    let logits = |tiny: &Tiny| {
        let loaded = tiny.load(&kernels()).unwrap();
        assert_eq!(loaded.weights, resident_bytes(&group(&tiny.header.tensors), DeviceClass::Cpu).unwrap());
        let cache = Cache::new(loaded.model.cache_spec(), KvDType::F32, CACHE_BLOCKS).unwrap();
        Machine { model: loaded.model, cache }.step(&[part(&text, 0, &[0, 1])])
    };
    let plain = logits(&Tiny::new());
    assert_eq!(logits(&with_factors(1.0)), plain);
    assert_ne!(logits(&with_factors(8.0)), plain);
}

#[test]
fn checkpoints_that_make_no_model_are_refused() {
    let refusal = |change: &dyn Fn(&mut Tiny)| {
        let mut tiny = Tiny::new();
        change(&mut tiny);
        assert!(tiny.check().is_err(), "what cannot be loaded is found without loading");
        match tiny.load(&kernels()) {
            Err(error) => error,
            Ok(_) => panic!("not refused"),
        }
    };
    fn tensor<'a>(tiny: &'a mut Tiny, name: &str) -> &'a mut TensorInfo {
        tiny.header.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }
    let missing = refusal(&|t| tensor(t, "blk.1.ffn_up.weight").name = "blk.1.ffn_up.scale".to_owned());
    assert!(matches!(missing, ModelError::Weights(LoadError::Missing(_))), "{missing}");
    let unknown = refusal(&|t| {
        let mut bias = tensor(t, "output_norm.weight").clone();
        bias.name = "blk.0.attn_q.bias".to_owned();
        t.header.tensors.push(bias);
    });
    assert!(matches!(unknown, ModelError::Weights(LoadError::Unknown(_))), "{unknown}");
    let shape = refusal(&|t| tensor(t, "blk.0.ffn_down.weight").shape.reverse());
    assert!(matches!(shape, ModelError::Weights(LoadError::Shape { .. })), "{shape}");
    let outside = refusal(&|t| tensor(t, "output_norm.weight").range.end += 1);
    assert!(matches!(outside, ModelError::Weights(LoadError::Map(_))), "{outside}");
    let dtype = refusal(&|t| tensor(t, "output_norm.weight").dtype = DType::I32);
    assert!(matches!(dtype, ModelError::Weights(LoadError::Resident { .. })), "{dtype}");
    let lying = refusal(&|t| tensor(t, "blk.0.attn_v.weight").dtype = DType::F16);
    assert!(matches!(lying, ModelError::Weights(LoadError::Map(_))), "{lying}");
    let no_blocks = refusal(&|t| tensor(t, "token_embd.weight").shape = vec![64, 50]);
    assert!(matches!(no_blocks, ModelError::Weights(LoadError::Map(_))), "{no_blocks}");
    let heads = refusal(&|t| t.geometry.layers[0].head_dim = 24);
    assert!(matches!(heads, ModelError::Setting { .. }), "{heads}");
    let scaling = refusal(&|t| {
        t.metadata.insert("llama.rope.scaling.type".to_owned(), Value::String("yarn".to_owned()));
    });
    assert!(matches!(scaling, ModelError::Setting { .. }), "{scaling}");
    let nan = refusal(&|t| {
        let start = tensor(t, "output_norm.weight").range.start as usize;
        t.bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(matches!(nan, ModelError::Weights(LoadError::NotFinite(_))), "{nan}");
}
