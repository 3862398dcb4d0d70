"""Decoding of images, videos and MATLAB files, and computation of optical flow."""
