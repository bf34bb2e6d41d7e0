"""What a suspicious Bob would run, and what the owner therefore runs first."""
