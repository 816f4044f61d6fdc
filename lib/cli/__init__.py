"""What a person types and reads: arguments, one module per command, the console. The only room that prints."""
