"""ModernBERT without padding: packing, the forward pass, and CUDA graphs."""
