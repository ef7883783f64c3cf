"""Programs of the checkout, run as `python -m tools.NAME`; none of them is in the wheel."""
