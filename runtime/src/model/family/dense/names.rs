//! What the tensors are called in either kind of checkpoint.

use super::super::Description;

/// The naming of a checkpoint.
pub(super) enum Names {
    Gguf,
    HuggingFace,
}

/// Names of one layer's tensors.
pub(super) struct LayerNames {
    pub(super) attention_norm: String,
    pub(super) q: String,
    pub(super) k: String,
    pub(super) v: String,
    pub(super) o: String,
    pub(super) q_norm: String,
    pub(super) k_norm: String,
    pub(super) mlp_norm: String,
    pub(super) gate: String,
    pub(super) up: String,
    pub(super) down: String,
}

/// Factors of the rope frequencies, which some GGUF files carry.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

impl Names {
    pub(super) fn of(description: Description<'_>) -> Self {
        match description {
            Description::Gguf(_) => Self::Gguf,
            Description::Config(_) => Self::HuggingFace,
        }
    }

    pub(super) fn embedding(&self) -> String {
        self.either("token_embd.weight", "model.embed_tokens.weight")
    }

    pub(super) fn norm(&self) -> String {
        self.either("output_norm.weight", "model.norm.weight")
    }

    pub(super) fn output(&self) -> String {
        self.either("output.weight", "lm_head.weight")
    }

    pub(super) fn layer(&self, index: usize) -> LayerNames {
        let name = |gguf: &str, hf: &str| match self {
            Self::Gguf => format!("blk.{index}.{gguf}.weight"),
            Self::HuggingFace => format!("model.layers.{index}.{hf}.weight"),
        };
        LayerNames {
            attention_norm: name("attn_norm", "input_layernorm"),
            q: name("attn_q", "self_attn.q_proj"),
            k: name("attn_k", "self_attn.k_proj"),
            v: name("attn_v", "self_attn.v_proj"),
            o: name("attn_output", "self_attn.o_proj"),
            q_norm: name("attn_q_norm", "self_attn.q_norm"),
            k_norm: name("attn_k_norm", "self_attn.k_norm"),
            mlp_norm: name("ffn_norm", "post_attention_layernorm"),
            gate: name("ffn_gate", "mlp.gate_proj"),
            up: name("ffn_up", "mlp.up_proj"),
            down: name("ffn_down", "mlp.down_proj"),
        }
    }

    fn either(&self, gguf: &str, hf: &str) -> String {
        match self {
            Self::Gguf => gguf.to_owned(),
            Self::HuggingFace => hf.to_owned(),
        }
    }
}

/// Whether a tensor may stay unread: old checkpoints carry the rope frequencies, which follow from the settings.
pub(super) fn ignored(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}
