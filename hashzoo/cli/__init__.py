"""The commands: their options and help texts, the checks of what the user typed, and what is printed."""
