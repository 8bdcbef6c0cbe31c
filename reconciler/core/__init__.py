"""The pure part: documents in, decisions out. No file, socket, clock, random number, process or database."""
