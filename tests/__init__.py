"""The tests. unit, database and process say what a test needs; support has what they share."""
