"""Bytes -> pixels: images, videos, optical flow and MATLAB's files."""
