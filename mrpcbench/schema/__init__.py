"""The requests of the commands, and the records that they store. Standard library and pydantic only."""
