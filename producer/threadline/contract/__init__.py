"""The wire and its words: pure data that imports the standard library, msgspec and threadline.errors only."""
