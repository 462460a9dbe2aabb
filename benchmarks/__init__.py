"""Long measurements; each writes what it found, and how to find it again, under results/."""
