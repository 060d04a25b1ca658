"""Quality: how good a photo is, with and without a reference."""
