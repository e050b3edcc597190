"""The schema version of stored files: major.minor. A minor version only adds fields. Standard library only."""

MAJOR, MINOR = 2, 1
SCHEMA_VERSION = f"{MAJOR}.{MINOR}"
