"""The arithmetic: Gaussians, the LSTM, the cross-entropy, the network. Knows nothing of methods, runs or files."""
