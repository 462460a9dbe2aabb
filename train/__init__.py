"""From labelled text to a model directory."""
