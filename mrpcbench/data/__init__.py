"""What `--data` names: its layout, its pairs, and their tokens in batches."""
