"""One module for each command; each has one function that takes a request and returns a record."""
