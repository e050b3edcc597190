"""What can be asked for and what a record holds. Standard library and pydantic only."""
