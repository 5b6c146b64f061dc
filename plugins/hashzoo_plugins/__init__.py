"""The plugins that come with hashzoo: methods, losses, heads, backbones, datasets, metrics, launchers and trackers."""
