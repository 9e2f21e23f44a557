"""Reelmill: raw media in, curated shards, a joint video-audio diffusion model out."""

__version__ = "0.1.0"
