//! Dense decoders: pre-norm layers of rotary grouped attention and SwiGLU. What differs from family to family is said
//! in an [`Architecture`].

mod names;
mod settings;

use std::sync::Arc;

use candle_core::Tensor;
use contract::geometry::{AttentionKind, Family};
use kernels::{Heads, Kernels, RopePairs, TokenTile, token_tiles};

use super::{LoadRequest, Loaded, ModelError};
use crate::model::cache::{Cache, CacheGroup, CacheSpec, PagedGroup};
use crate::model::part::attention::SelfAttention;
use crate::model::part::buffers::{Buffers, Views, Widths};
use crate::model::part::embedding::{Vocabulary, select};
use crate::model::part::linear::Linear;
use crate::model::part::mlp::Mlp;
use crate::model::part::norm::{HeadNorms, RmsNorm};
use crate::model::part::rope::{Angles, Rope};
use crate::model::part::{Context, linear::PackedWeight};
use crate::model::step::{Limits, StepInput};
use crate::model::{ForwardError, Model};
use crate::weights::{LoadError, Loader};
use names::{LayerNames, Names};
use settings::Settings;

/// What a family has of its own.
pub(super) struct Architecture {
    /// Its name in metadata.
    pub(super) family: Family,
    /// Which numbers of a head rotate together in its GGUF files.
    pub(super) gguf_pairs: RopePairs,
    /// Whether the queries and keys of each head are normalised before they are rotated.
    pub(super) head_norms: bool,
}

struct Dense {
    kernels: Arc<Kernels>,
    limits: Limits,
    spec: CacheSpec,
    parts: Parts,
    buffers: Buffers,
    angles: Angles,
    tiles: Vec<TokenTile>,
}

/// What comes from the checkpoint.
struct Parts {
    rope: Rope,
    vocabulary: Vocabulary,
    layers: Vec<Layer>,
    norm: RmsNorm,
}

struct Layer {
    attention_norm: RmsNorm,
    attention: SelfAttention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
}

/// Loads a decoder.
pub(super) fn load(
    architecture: &Architecture,
    request: &LoadRequest<'_>,
    kernels: Arc<Kernels>,
    progress: &mut dyn FnMut(u64),
) -> Result<Loaded, ModelError> {
    let widths = widths(request)?;
    let mut loader = Loader::new(request.tensors, Some(&kernels), request.device, progress);
    let parts = Parts::load(architecture, request, widths, &mut loader)?;
    let weights = loader.finish(names::ignored)?;
    let buffers = Buffers::new(widths, &kernels)?;
    let activations = buffers.bytes();
    let Widths { heads, .. } = widths;
    let paged = PagedGroup { layers: parts.layers.len(), kv_heads: heads.kv_heads, head_dim: heads.head_dim };
    let limits = Limits {
        tokens: widths.tokens,
        logits: widths.rows,
        vocabulary: widths.vocabulary,
        positions: request.geometry.context_length as usize,
    };
    let model = Dense {
        kernels,
        limits,
        spec: CacheSpec { groups: vec![CacheGroup::Paged(paged)] },
        parts,
        buffers,
        angles: Angles::with_capacity(widths.tokens, heads.head_dim),
        tiles: Vec::with_capacity(widths.tokens),
    };
    Ok(Loaded { model: Box::new(model), weights, activations })
}

/// Finds whatever `load` would refuse, without reading the matrices.
pub(super) fn check(architecture: &Architecture, request: &LoadRequest<'_>) -> Result<(), ModelError> {
    let progress = &mut |_| ();
    let mut loader = Loader::new(request.tensors, None, request.device, progress);
    Parts::load(architecture, request, widths(request)?, &mut loader)?;
    loader.finish(names::ignored)?;
    Ok(())
}

fn widths(request: &LoadRequest<'_>) -> Result<Widths, ModelError> {
    let geometry = request.geometry;
    let [group] = geometry.layers.as_slice() else {
        return Err(setting("the layers", "of several kinds", "one kind of layer"));
    };
    let AttentionKind::Full = group.attention;
    let heads = Heads {
        heads: geometry.heads as usize,
        kv_heads: group.kv_heads as usize,
        head_dim: group.head_dim as usize,
    };
    if !heads.supported() {
        return Err(setting("the head size", &group.head_dim.to_string(), "multiples of 16 up to 256"));
    }
    Ok(Widths {
        tokens: request.step_tokens,
        rows: request.logit_rows,
        hidden: geometry.hidden as usize,
        heads,
        ffn: geometry.ffn as usize,
        vocabulary: geometry.vocab as usize,
    })
}

impl Parts {
    fn load(
        architecture: &Architecture,
        request: &LoadRequest<'_>,
        widths: Widths,
        loader: &mut Loader<'_>,
    ) -> Result<Self, ModelError> {
        let names = Names::of(request.description);
        let settings = Settings::read(architecture, request.description, widths.heads.head_dim, loader)?;
        let vocabulary = load_vocabulary(loader, &names, widths)?;
        let norm = load_norm(loader, &names.norm(), widths.hidden, &settings)?;
        let n_layers: u32 = request.geometry.layers.iter().map(|group| group.count).sum();
        let layers = (0..n_layers as usize)
            .map(|index| load_layer(loader, &names.layer(index), widths, &settings))
            .collect::<Result<_, _>>()?;
        Ok(Self { rope: settings.rope, vocabulary, layers, norm })
    }
}

fn setting(setting: &str, found: &str, supported: &'static str) -> ModelError {
    ModelError::Setting { setting: setting.to_owned(), found: found.to_owned(), supported }
}

/// The output projection is a matrix of its own where there is one, and the embedding otherwise.
fn load_vocabulary(loader: &mut Loader<'_>, names: &Names, widths: Widths) -> Result<Vocabulary, LoadError> {
    let Widths { vocabulary, hidden, .. } = widths;
    let embedding = loader.matrix(&names.embedding(), vocabulary, hidden)?;
    if loader.has(&names.output()) {
        let output = Linear::new(vec![loader.matrix(&names.output(), vocabulary, hidden)?]);
        Ok(Vocabulary::Apart { embedding, output })
    } else {
        Ok(Vocabulary::Tied(Linear::new(vec![embedding])))
    }
}

fn load_norm(
    loader: &mut Loader<'_>,
    name: &str,
    width: usize,
    settings: &Settings,
) -> Result<RmsNorm, LoadError> {
    Ok(RmsNorm { weight: loader.vector(name, width)?, epsilon: settings.epsilon })
}

fn load_layer(
    loader: &mut Loader<'_>,
    names: &LayerNames,
    widths: Widths,
    settings: &Settings,
) -> Result<Layer, LoadError> {
    let Widths { hidden, heads, ffn, .. } = widths;
    let (q, kv) = (heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim);
    let attention_norm = load_norm(loader, &names.attention_norm, hidden, settings)?;
    let mlp_norm = load_norm(loader, &names.mlp_norm, hidden, settings)?;
    let head_norms = match settings.head_norms {
        true => Some(HeadNorms {
            q: load_norm(loader, &names.q_norm, heads.head_dim, settings)?,
            k: load_norm(loader, &names.k_norm, heads.head_dim, settings)?,
        }),
        false => None,
    };
    let mut stacked = |parts: &[(&str, usize)], columns: usize| -> Result<Linear, LoadError> {
        let weights: Result<Vec<PackedWeight>, _> =
            parts.iter().map(|(name, rows)| loader.matrix(name, *rows, columns)).collect();
        Ok(Linear::new(weights?))
    };
    let attention = SelfAttention {
        heads,
        qkv: stacked(&[(&names.q, q), (&names.k, kv), (&names.v, kv)], hidden)?,
        head_norms,
        output: stacked(&[(&names.o, hidden)], q)?,
    };
    let mlp = Mlp {
        gate_up: stacked(&[(&names.gate, ffn), (&names.up, ffn)], hidden)?,
        down: stacked(&[(&names.down, hidden)], ffn)?,
    };
    Ok(Layer { attention_norm, attention, mlp_norm, mlp })
}

impl Model for Dense {
    fn cache_spec(&self) -> CacheSpec {
        self.spec.clone()
    }

    fn kernels(&self) -> Option<&Kernels> {
        Some(&self.kernels)
    }

    fn forward(&mut self, step: &StepInput, cache: &mut Cache) -> Result<Tensor, ForwardError> {
        step.check(self.limits, cache)?;
        let Parts { rope, vocabulary, layers, norm } = &self.parts;
        rope.angles(&step.positions, &mut self.angles);
        token_tiles(&step.seq_starts, &mut self.tiles);
        let views = self.buffers.views(step.tokens.len(), step.logits_at.len())?;
        let context = Context { kernels: &self.kernels, step, tiles: &self.tiles, angles: &self.angles };
        vocabulary.embed(&context, &views.hidden)?;
        for (index, layer) in layers.iter().enumerate() {
            layer.forward(&context, rope, cache.arena(0, index), &views)?;
        }
        if !step.logits_at.is_empty() {
            select(&context, &views.hidden, &views.selected)?;
            norm.forward(&context, &views.selected, &views.selected_normed)?;
            vocabulary.logits(&context, &views.selected_normed, &views.logits)?;
        }
        Ok(views.logits)
    }

    fn states(&self, rows: usize) -> candle_core::Result<Tensor> {
        Ok(self.buffers.views(0, rows)?.selected_normed)
    }
}

impl Layer {
    fn forward(
        &self,
        context: &Context<'_>,
        rope: &Rope,
        arena: &Tensor,
        views: &Views,
    ) -> candle_core::Result<()> {
        self.attention_norm.forward(context, &views.hidden, &views.normed)?;
        self.attention.forward(context, rope, (arena, &context.step.groups[0]), views)?;
        context.add(&views.hidden, &views.normed)?;
        self.mlp_norm.forward(context, &views.hidden, &views.normed)?;
        self.mlp.forward(context, views)?;
        context.add(&views.hidden, &views.normed)
    }
}
