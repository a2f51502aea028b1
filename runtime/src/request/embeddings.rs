//! Requests of `/v1/embeddings`. Pure.

use super::fields::Fields;
use super::{Invalid, InvalidKind, Prompt, cache_salt, model, prompt};

/// The field that texts come in.
pub const INPUT: &str = "input";
/// The field that says how many numbers a vector gets.
pub const DIMENSIONS: &str = "dimensions";
/// Most texts of a request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;

/// Texts whose vectors are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct ToVectors {
    /// The name that the model was asked for by.
    pub model: String,
    /// Texts or tokens; at least one.
    pub inputs: Vec<Prompt>,
    /// Whether what goes around plain text is wanted.
    pub special: bool,
    /// Numbers of each vector; absent: all of them.
    pub dimensions: Option<u32>,
    /// How vectors are written.
    pub encoding: Encoding,
    /// Requests of lower numbers are admitted first.
    pub priority: i32,
    /// Requests of different salts do not share cached prompts.
    pub cache_salt: String,
    /// Fields that were ignored.
    pub ignored: Vec<String>,
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A list of numbers.
    Float,
    /// Its numbers as little-endian `f32`, in base 64.
    Base64,
}

impl ToVectors {
    /// Reads a body.
    ///
    /// # Errors
    /// Where a field is not what it should be.
    pub fn parse(body: &[u8], served: &[String]) -> Result<Self, Invalid> {
        let mut fields = Fields::parse(body)?;
        let model = model(&mut fields, served)?;
        let inputs = prompt::prompts(&mut fields, INPUT, MAX_INPUTS)?;
        let dimensions = fields.count(DIMENSIONS)?;
        let encoding = match fields.text("encoding_format")?.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(_) => {
                let message = "encoding_format must be \"float\" or \"base64\"";
                return Err(Invalid::new(InvalidKind::Value, "encoding_format", message));
            }
        };
        let special = fields.flag("add_special_tokens")?.unwrap_or(true);
        let priority = fields.rank("priority")?.unwrap_or_default();
        let cache_salt = cache_salt(&mut fields)?;
        let ignored = fields.finish()?;
        Ok(Self { model, inputs, special, dimensions, encoding, priority, cache_salt, ignored })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(extra: &Value) -> Result<ToVectors, Invalid> {
        let mut body = json!({ "model": "m", "input": "a" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        ToVectors::parse(body.to_string().as_bytes(), &["m".into()])
    }

    #[test]
    fn inputs_are_texts_or_tokens_one_or_many() {
        let inputs = |input: Value| parse(&json!({ "input": input })).map(|request| request.inputs);
        let text = |text: &str| Prompt::Text(text.into());
        assert_eq!(inputs(json!("a")), Ok(vec![text("a")]));
        assert_eq!(inputs(json!(["a", "b"])), Ok(vec![text("a"), text("b")]));
        assert_eq!(inputs(json!([1, 2])), Ok(vec![Prompt::Tokens(vec![1, 2])]));
        assert_eq!(
            inputs(json!([[1], [2, 3]])),
            Ok(vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])])
        );
        assert_eq!(inputs(json!(vec!["a"; MAX_INPUTS])).map(|all| all.len()), Ok(MAX_INPUTS));
        for wrong in
            [json!(null), json!([]), json!([[]]), json!([-1]), json!(7), json!(vec!["a"; MAX_INPUTS + 1])]
        {
            let error = inputs(wrong).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(INPUT), "{error:?}");
        }
    }

    #[test]
    fn fields_are_read_ignored_or_refused() {
        let plain = parse(&json!({ "user": "me" })).unwrap();
        assert_eq!((plain.encoding, plain.dimensions, plain.special), (Encoding::Float, None, true));
        assert_eq!(plain.ignored, ["user"]);
        let other =
            parse(&json!({ "encoding_format": "base64", "dimensions": 4, "add_special_tokens": false }));
        let other = other.unwrap();
        assert_eq!((other.encoding, other.dimensions, other.special), (Encoding::Base64, Some(4), false));
        for (field, value) in [
            ("encoding_format", json!("int8")),
            ("encoding_format", json!(1)),
            ("dimensions", json!(0)),
            ("dimensions", json!(1.5)),
            ("model", json!("other")),
            ("stream", json!(true)),
        ] {
            let error = parse(&json!({ field: value })).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(field), "{error:?}");
        }
    }
}
