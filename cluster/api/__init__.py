"""Wire dialects: bytes → call, answer → bytes. One module for each dialect; ``application`` puts them on paths."""
