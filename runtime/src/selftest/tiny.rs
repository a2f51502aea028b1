//! Two-layer models made from a seed, with weights of several formats: the self-test's, and the model tests'.

use std::sync::Arc;

use contract::DType;
use contract::ModelGeometry;
use contract::device::DeviceClass;
use contract::geometry::{AttentionKind, Family, LayerGroup};
use contract::header::gguf::{Metadata, Value};
use contract::header::{Header, TensorInfo};
use half::{bf16, f16};
use kernels::Kernels;

use crate::model::{Description, LoadRequest, Loaded, ModelError, check, load};
use crate::weights::Tensors;

/// Tokens of its vocabulary; no multiple of a tile.
pub const VOCABULARY: usize = 50;
/// Blocks that its tests' caches have.
pub const CACHE_BLOCKS: usize = 8;

const LAYERS: usize = 2;
const HIDDEN: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const FFN: usize = 96;
const STEP_TOKENS: usize = 128;
const LOGIT_ROWS: usize = 8;

/// The model before it is loaded.
#[derive(Debug)]
pub struct Tiny {
    /// Its shape.
    pub geometry: ModelGeometry,
    /// Its settings.
    pub metadata: Metadata,
    /// Its tensors' names, types and places.
    pub header: Header,
    /// Its tensors' bytes.
    pub bytes: Vec<u8>,
}

impl Default for Tiny {
    fn default() -> Self {
        Self::new()
    }
}

impl Tiny {
    /// Makes a llama. The same every time.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Family::Llama)
    }

    /// Makes one of a family. The same every time.
    #[must_use]
    pub fn of(family: Family) -> Self {
        let mut maker = Maker { random: Random(0x5eed), tensors: Vec::new(), bytes: Vec::new() };
        let head_dim = match family {
            Family::Llama => HIDDEN / HEADS,
            Family::Qwen3 => 2 * HIDDEN / HEADS,
        };
        let (q, kv) = (HEADS * head_dim, KV_HEADS * head_dim);
        maker.matrix("token_embd", DType::Q8_0, VOCABULARY, HIDDEN);
        for layer in 0..LAYERS {
            let name = |tensor: &str| format!("blk.{layer}.{tensor}");
            maker.gain(&name("attn_norm"), HIDDEN);
            maker.matrix(&name("attn_q"), DType::Q4_1, q, HIDDEN);
            maker.matrix(&name("attn_k"), DType::Q8_0, kv, HIDDEN);
            // Every format has its turn.
            let (value, output) = [(DType::F32, DType::Q4_1), (DType::F16, DType::BF16)][layer];
            maker.matrix(&name("attn_v"), value, kv, HIDDEN);
            maker.matrix(&name("attn_output"), output, HIDDEN, q);
            if family == Family::Qwen3 {
                maker.gain(&name("attn_q_norm"), head_dim);
                maker.gain(&name("attn_k_norm"), head_dim);
            }
            maker.gain(&name("ffn_norm"), HIDDEN);
            maker.matrix(&name("ffn_gate"), DType::Q4_1, FFN, HIDDEN);
            maker.matrix(&name("ffn_up"), DType::Q8_0, FFN, HIDDEN);
            maker.matrix(&name("ffn_down"), DType::Q4_1, HIDDEN, FFN);
        }
        maker.gain("output_norm", HIDDEN);
        let group = LayerGroup {
            count: LAYERS as u32,
            attention: AttentionKind::Full,
            kv_heads: KV_HEADS as u32,
            head_dim: head_dim as u32,
        };
        let geometry = ModelGeometry {
            family,
            layers: vec![group],
            hidden: HIDDEN as u32,
            heads: HEADS as u32,
            ffn: FFN as u32,
            vocab: VOCABULARY as u32,
            context_length: 128,
        };
        let settings = [("rope.freq_base", 10_000.0), ("attention.layer_norm_rms_epsilon", 1e-5)];
        let metadata =
            settings.map(|(name, value)| (format!("{}.{name}", family.name()), Value::Float(value)));
        let header = Header { metadata: Metadata::new(), tensors: maker.tensors };
        Self { geometry, metadata: metadata.into(), header, bytes: maker.bytes }
    }

    /// Loads it onto `kernels`.
    ///
    /// # Errors
    /// Where it has been tampered with, or memory is short.
    pub fn load(&self, kernels: &Arc<Kernels>) -> Result<Loaded, ModelError> {
        let tensors = self.tensors()?;
        load(&self.request(&tensors), Arc::clone(kernels), &mut |_| ())
    }

    /// Finds what [`Tiny::load`] would refuse.
    ///
    /// # Errors
    /// Where it has been tampered with.
    pub fn check(&self) -> Result<(), ModelError> {
        check(&self.request(&self.tensors()?))
    }

    fn tensors(&self) -> Result<Tensors, ModelError> {
        let tensors = Tensors::in_memory(self.bytes.clone(), &self.header);
        Ok(tensors.map_err(crate::weights::LoadError::from)?)
    }

    const fn request<'a>(&'a self, tensors: &'a Tensors) -> LoadRequest<'a> {
        LoadRequest {
            geometry: &self.geometry,
            description: Description::Gguf(&self.metadata),
            tensors,
            device: DeviceClass::Cpu,
            step_tokens: STEP_TOKENS,
            logit_rows: LOGIT_ROWS,
        }
    }

    /// The first `n` tokens of a text without meaning that depends on `n`.
    #[must_use]
    pub fn tokens(&self, n: usize) -> Vec<u32> {
        let mut random = Random(n as u64);
        (0..n).map(|_| (random.next() % VOCABULARY as u64) as u32).collect()
    }
}

/// Numbers that are exact in every format, so that any program makes the same model.
struct Maker {
    random: Random,
    tensors: Vec<TensorInfo>,
    bytes: Vec<u8>,
}

impl Maker {
    fn matrix(&mut self, name: &str, dtype: DType, rows: usize, columns: usize) {
        let start = self.bytes.len() as u64;
        for _ in 0..rows * columns / dtype.block_len() as usize {
            match dtype {
                DType::Q4_1 => {
                    let scale = self.random.scale(14);
                    self.half(scale);
                    self.half(-8.0 * scale);
                    for _ in 0..16 {
                        self.bytes.push(self.random.next() as u8);
                    }
                }
                DType::Q8_0 => {
                    let scale = self.random.scale(18);
                    self.half(scale);
                    for _ in 0..32 {
                        self.bytes.push((self.random.next() % 255) as u8 ^ 0x80);
                    }
                }
                DType::F16 => {
                    let number = 0.5 * self.random.number();
                    self.half(number);
                }
                DType::BF16 => {
                    let number = bf16::from_f32(self.random.coarse_number());
                    self.bytes.extend(number.to_le_bytes());
                }
                _ => {
                    let number = 0.5 * self.random.number();
                    self.bytes.extend(number.to_le_bytes());
                }
            }
        }
        self.tensor(name, dtype, vec![rows as u64, columns as u64], start);
    }

    /// The gains of a norm, around one.
    fn gain(&mut self, name: &str, width: usize) {
        let start = self.bytes.len() as u64;
        for _ in 0..width {
            let number = 1.0 + 0.25 * self.random.number();
            self.bytes.extend(number.to_le_bytes());
        }
        self.tensor(name, DType::F32, vec![width as u64], start);
    }

    fn half(&mut self, number: f32) {
        self.bytes.extend(f16::from_f32(number).to_le_bytes());
    }

    fn tensor(&mut self, name: &str, dtype: DType, shape: Vec<u64>, start: u64) {
        let range = start..self.bytes.len() as u64;
        self.tensors.push(TensorInfo { name: format!("{name}.weight"), dtype, shape, range });
    }
}

/// splitmix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between −1 and 1, in steps of 2⁻¹¹.
    fn number(&mut self) -> f32 {
        (self.next() >> 52) as f32 / 2048.0 - 1.0
    }

    /// Between −1/2 and 1/2, in steps of 2⁻⁸.
    fn coarse_number(&mut self) -> f32 {
        (self.next() >> 56) as f32 / 256.0 - 0.5
    }

    /// Between 2^(9 − `bits`) and 2^(10 − `bits`), exact in half precision.
    fn scale(&mut self, bits: i32) -> f32 {
        (512 + self.next() % 512) as f32 * f32::powi(2.0, -bits)
    }
}
