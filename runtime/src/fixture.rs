//! Files that tests of several modules need, built byte by byte as the formats' specifications say.

pub(crate) mod toy;

/// Tensors in [`gguf_file`].
pub(crate) const TENSORS: usize = 2;

/// The smallest GGUF file that passes every check: one layer, two tensors, a vocabulary of four.
pub(crate) fn gguf_file(architecture: &str) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    let count = |out: &mut Vec<u8>, n: usize| out.extend((n as u64).to_le_bytes());
    let string = |out: &mut Vec<u8>, text: &str| {
        count(out, text.len());
        out.extend(text.as_bytes());
    };
    let numbers = [
        ("block_count", 1u32),
        ("embedding_length", 32),
        ("attention.head_count", 2),
        ("feed_forward_length", 64),
        ("vocab_size", 4),
        ("context_length", 128),
    ];
    count(&mut file, TENSORS);
    count(&mut file, numbers.len() + 2);
    for (key, value) in [("general.architecture", architecture), ("general.license", "apache-2.0")] {
        string(&mut file, key);
        file.extend(8u32.to_le_bytes());
        string(&mut file, value);
    }
    for (key, value) in numbers {
        string(&mut file, &format!("{architecture}.{key}"));
        file.extend(4u32.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    for (at, name) in ["token_embd.weight", "output.weight"].into_iter().enumerate() {
        string(&mut file, name);
        file.extend(2u32.to_le_bytes());
        count(&mut file, 32);
        count(&mut file, 4);
        file.extend(0u32.to_le_bytes());
        count(&mut file, at * 512);
    }
    file.resize(file.len().next_multiple_of(32) + TENSORS * 512, 0);
    file
}

/// `config.json` of the smallest model; it knows as many tokens as the toy.
pub(crate) const CONFIG: &str = r#"{"model_type":"llama","num_hidden_layers":1,"hidden_size":32,
    "num_attention_heads":2,"intermediate_size":64,"vocab_size":257,"max_position_embeddings":128}"#;

/// A safetensors file with one tensor.
pub(crate) fn safetensors_file() -> Vec<u8> {
    let header = r#"{"model.norm.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 8]);
    bytes
}
