//! Requests of `/tokenize` and `/detokenize`, which do not reach the engine.

use super::fields::Fields;
use super::{Invalid, InvalidKind, Prompt, named_model, prompt, structured};

/// Text or messages to be cut into tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct ToTokens {
    /// What to cut.
    pub prompt: Prompt,
    /// Whether what goes before plain text is wanted.
    pub special: bool,
    /// Whether the tokens' texts are.
    pub strings: bool,
}

/// Tokens to be made into text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToText {
    /// The tokens.
    pub tokens: Vec<u32>,
}

impl ToTokens {
    /// Reads a body of `/tokenize`.
    ///
    /// # Errors
    /// Where a field is not what it should be.
    pub fn parse(body: &[u8], served: &[String]) -> Result<Self, Invalid> {
        let mut fields = Fields::parse(body)?;
        named_model(&mut fields, served)?;
        let text = fields.text("prompt")?;
        let prompt = match text {
            Some(text) => Prompt::Text(text),
            None => Prompt::Chat(structured::chat(&mut fields)?.0),
        };
        let special = fields.flag("add_special_tokens")?.unwrap_or(true);
        let strings = fields.flag("return_token_strs")?.unwrap_or(false);
        fields.finish()?;
        Ok(Self { prompt, special, strings })
    }
}

impl ToText {
    /// Reads a body of `/detokenize`.
    ///
    /// # Errors
    /// Where a field is not what it should be.
    pub fn parse(body: &[u8], served: &[String]) -> Result<Self, Invalid> {
        let mut fields = Fields::parse(body)?;
        named_model(&mut fields, served)?;
        let tokens = fields.take("tokens").and_then(|value| prompt::ids(value.as_array()?));
        let message = "tokens must be a list of token ids";
        let tokens = tokens.ok_or_else(|| Invalid::new(InvalidKind::Value, "tokens", message))?;
        fields.finish()?;
        Ok(Self { tokens })
    }
}
