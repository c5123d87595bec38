"""What trained modules generate. Modules of it are imported by name: some need Lightning, which takes seconds."""
