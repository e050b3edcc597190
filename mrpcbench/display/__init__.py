"""Shows records as rich tables, Markdown, JUnit XML and GitHub annotations."""
