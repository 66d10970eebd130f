"""Feature networks, distances, manifests, pictures and the report of a run."""
