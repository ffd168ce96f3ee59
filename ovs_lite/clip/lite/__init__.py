"""The miniature CLIPs that ship with the kit: network, configurations, weights with their cards."""
