//! The model through a socket: arithmetic and shapes as llm-d-inference-sim v0.10.2 was recorded, records, scripts.

mod arithmetic;
mod hostile;
mod records;
mod scripts;
mod served;
mod streaming;
