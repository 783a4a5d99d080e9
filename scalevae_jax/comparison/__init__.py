"""Many runs: trained by one command, kept as records, compared."""
