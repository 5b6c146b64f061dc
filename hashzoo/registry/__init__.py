"""Plugins and saved methods: find by name what plugins offer, build it from options, digest its code, save and load,
write a scaffold.
"""
