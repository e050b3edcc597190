"""Resolves `--data`: its layout and pairs, and the pairs as tokens and batches."""
