"""The schema version of stored files: major.minor. A minor version only adds fields. Standard library only."""

MAJOR, MINOR = 2, 0
SCHEMA_VERSION = f"{MAJOR}.{MINOR}"
