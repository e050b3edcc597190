"""The Hugging Face hub: one commit a command, bounded waits, the shared cache, and uploads. All hub access is here."""
