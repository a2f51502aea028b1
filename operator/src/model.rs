//! The LlmModel pipeline: brings weights onto a volume, verifies them, and says what they are.

pub mod name;
