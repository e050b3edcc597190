"""ModernBERT on GLUE MRPC: train, evaluate, export, prove, measure."""
