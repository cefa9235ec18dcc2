//! x87 register file.

#[derive(Debug, Clone, Default)]
pub struct X87 {}
