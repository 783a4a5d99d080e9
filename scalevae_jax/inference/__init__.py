"""A trained model: reading it, its posteriors, its metrics, its sentences."""
