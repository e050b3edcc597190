"""Records as rich tables, Markdown, JUnit XML and annotations."""
