"""Command lines: argument parsing only. Each builds a configuration and calls the app or a library function."""
