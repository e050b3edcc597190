"""The rules that turn records into verdicts."""
