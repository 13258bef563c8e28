"""What the commands do and how it looks, one command a file; `ringfence.cli` only parses."""
