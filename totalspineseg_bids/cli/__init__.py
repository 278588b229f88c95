"""Command lines: parse arguments, then call the app or a library function."""
