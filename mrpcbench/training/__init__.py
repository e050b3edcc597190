"""Fine-tuning with the Trainer, checkpoints, and the model card."""
