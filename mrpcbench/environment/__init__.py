"""Machine and software versions for records, and the redaction of paths."""
