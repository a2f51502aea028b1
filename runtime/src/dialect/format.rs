//! The ways of writing calls that we know, and how each is recognised. Pure.

use std::str::FromStr;

/// How calls of tools are written. Sources: the chat templates of the families, as published with their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen 2.5 and 3.
    Hermes,
    /// `<tool_call><function=…><parameter=…>…</parameter></function></tool_call>`: Qwen3-Coder.
    QwenXml,
    /// `{"name": …, "parameters": …}` and nothing else: Llama 3.
    Llama,
    /// Marks of its own around a type, a name, and arguments in a block of code: DeepSeek V3 and R1.
    DeepseekV3,
    /// The same marks around a name and arguments: DeepSeek V3.1.
    DeepseekV31,
    /// `<tool_call>name<arg_key>…</arg_key><arg_value>…</arg_value></tool_call>`: GLM-4.5.
    Glm,
    /// `<minimax:tool_call><invoke name="…"><parameter name="…">…</parameter></invoke></minimax:tool_call>`: MiniMax-M2.
    Minimax,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}]`: Mistral until 2024.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{…}`: Mistral since then.
    MistralArgs,
}

/// What encloses one call or a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) open: &'static str,
    /// Absent: the end of the text.
    pub(super) close: Option<&'static str>,
}

/// By the names that vLLM's parsers have.
const NAMES: [(&str, ToolFormat); 9] = [
    ("hermes", ToolFormat::Hermes),
    ("qwen3_coder", ToolFormat::QwenXml),
    ("llama3_json", ToolFormat::Llama),
    ("deepseek_v3", ToolFormat::DeepseekV3),
    ("deepseek_v31", ToolFormat::DeepseekV31),
    ("glm45", ToolFormat::Glm),
    ("minimax_m2", ToolFormat::Minimax),
    ("mistral", ToolFormat::Mistral),
    ("mistral_args", ToolFormat::MistralArgs),
];

/// What only a template of that format contains, the first that fits first.
const SIGNS: [(&[&str], ToolFormat); 10] = [
    (&["<minimax:tool_call>", "<invoke name="], ToolFormat::Minimax),
    (&["<tool_call>", "<arg_key>"], ToolFormat::Glm),
    (&["<tool_call>", "<function="], ToolFormat::QwenXml),
    (&["<｜tool▁calls▁begin｜>", "```json"], ToolFormat::DeepseekV3),
    (&["<｜tool▁calls▁begin｜>"], ToolFormat::DeepseekV31),
    (&["[TOOL_CALLS]", "[ARGS]"], ToolFormat::MistralArgs),
    (&["[TOOL_CALLS]"], ToolFormat::Mistral),
    (&["<tool_call>", "arguments"], ToolFormat::Hermes),
    (&["<|python_tag|>", "parameters"], ToolFormat::Llama),
    (&["\"parameters\": ", "<|start_header_id|>"], ToolFormat::Llama),
];

impl ToolFormat {
    /// The format that a chat template teaches: the first whose marks it all contains.
    #[must_use]
    pub fn detect(template: &str) -> Option<Self> {
        let found = SIGNS.iter().find(|(signs, _)| signs.iter().all(|sign| template.contains(sign)));
        found.map(|(_, format)| *format)
    }

    pub(super) const fn marks(self) -> Marks {
        let (open, close) = match self {
            Self::Hermes | Self::QwenXml | Self::Glm => ("<tool_call>", Some("</tool_call>")),
            Self::Llama => ("<|python_tag|>", None),
            Self::DeepseekV3 | Self::DeepseekV31 => ("<｜tool▁calls▁begin｜>", Some("<｜tool▁calls▁end｜>")),
            Self::Minimax => ("<minimax:tool_call>", Some("</minimax:tool_call>")),
            Self::Mistral | Self::MistralArgs => ("[TOOL_CALLS]", None),
        };
        Marks { open, close }
    }

    /// What calls begin with, where that is always the same.
    #[must_use]
    pub const fn mark(self) -> Option<&'static str> {
        match self {
            Self::Llama => None,
            _ => Some(self.marks().open),
        }
    }

    /// What calls are written with: such of it as are special tokens are text of the answer all the same.
    #[must_use]
    pub const fn spelled(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::QwenXml => &["<tool_call>", "</tool_call>"],
            Self::Llama => &["<|python_tag|>"],
            Self::DeepseekV3 | Self::DeepseekV31 => &[
                "<｜tool▁calls▁begin｜>",
                "<｜tool▁calls▁end｜>",
                "<｜tool▁call▁begin｜>",
                "<｜tool▁call▁end｜>",
                "<｜tool▁sep｜>",
            ],
            Self::Glm => {
                &["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"]
            }
            Self::Minimax => &["<minimax:tool_call>", "</minimax:tool_call>"],
            Self::Mistral | Self::MistralArgs => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
        }
    }
}

impl FromStr for ToolFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, _)| *name == text).map(|(_, format)| *format);
        let names = || NAMES.map(|(name, _)| name).join(", ");
        found.ok_or_else(|| format!("expected one of: {}", names()))
    }
}
