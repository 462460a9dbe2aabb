"""The user's verbs: each parses its options and calls the rooms below."""
