"""Builds data sets from media at scale: workers decode, encoders run on all devices, and a build that stops goes on."""
