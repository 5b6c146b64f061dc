"""The commands: options, help texts, and what they print."""
