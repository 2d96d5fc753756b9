"""Which meters there are here, tried under load before they are believed."""
