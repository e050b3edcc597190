"""Worker processes that alternate call by call, and their protocol."""
