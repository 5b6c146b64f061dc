"""Names to objects: plugins, datasets, backbones, saved methods, scaffolds."""
