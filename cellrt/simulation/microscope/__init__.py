"""What a microscope and its camera do to light."""
