"""Images and splits: decode, transform, verify, audit."""
