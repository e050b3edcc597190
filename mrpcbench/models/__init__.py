"""Resolves `--model`: folder, configuration, tokenizer, weights and hashes."""
