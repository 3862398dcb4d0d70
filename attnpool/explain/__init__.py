"""Maps -> images: showing where the evidence is."""
