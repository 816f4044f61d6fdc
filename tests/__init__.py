"""What must hold. unit, database and process say where to look; support is what they share."""
