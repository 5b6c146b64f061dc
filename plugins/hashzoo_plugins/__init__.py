"""The methods, backbones, heads, losses and datasets that come with hashzoo."""
