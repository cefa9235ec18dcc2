"""The hypercall table; one module per operation."""
