"""The command line: arguments, one module per command, and the console. The only package that prints."""
