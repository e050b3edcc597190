"""What `--model` names: its folder, configuration, tokenizer, weights and hashes."""
