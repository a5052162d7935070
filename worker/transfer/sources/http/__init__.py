"""Sources behind http and https URLs, which lead to public addresses only."""
