"""ModernBERT on GLUE MRPC: train, evaluate, export, verify, measure."""
