"""The winner as a frozen generator: prior modules and their cards."""
