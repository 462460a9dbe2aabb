"""Everything a served model needs at run time; shipped inside every archive."""
