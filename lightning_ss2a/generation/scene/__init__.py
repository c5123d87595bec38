"""What is to be heard: sources of any modality, perceived in media or named in words."""
