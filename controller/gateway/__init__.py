"""The HTTP border of the controller. See README.md for its flow."""
