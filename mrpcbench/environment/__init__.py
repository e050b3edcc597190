"""The machine, the versions, and the redaction of paths."""
