"""Images and splits: decode and transform image files, find damaged ones, audit splits for duplicates and leaks."""
