"""What a Trainer calls while it trains: one protocol, `Callback`, and the callbacks of the package."""
