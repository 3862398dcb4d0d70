"""Images -> features: networks by name, their weights, and what their layers are turned into."""
