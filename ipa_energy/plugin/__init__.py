"""What turns a checkout of IPA into one that plans with energy: patches, and what they call."""
