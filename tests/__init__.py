"""What must keep working, from the parts to the road as a user walks it."""
